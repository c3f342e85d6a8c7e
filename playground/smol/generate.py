"""Writes the shapes world for a pretrained language model: larger images, and language as people use it.

python -m playground.smol.generate --out runs/smol/data --scenes 60000 --chat runs/smol/chat.json
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import multiprocessing
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from llava.files.atomic_write import atomic_write
from playground.shapes.conversations import Record
from playground.shapes.generate import Look, training_name, training_scene
from playground.shapes.saving import save_image
from playground.shapes.scene import Split, sample_scene, scene_rng
from playground.smol.conversations import caption_record, conversation_record, short_record, test_question
from playground.smol.questions import KINDS

SIDE = 168  # pixels: 12 by 12 patches of 14
CHAT_SHARE = 0.08  # of the records of stage 2 and of budgets: text alone
SHORT_TESTS = (True, True, False)  # in turn: answered in a word or two, or in a sentence


def training_records(out: Path, seed: int, index: int) -> tuple[Look, Record, Record, Record]:
    """Draw a training scene; return its look, and its records for stage 1, stage 2 and budgets."""
    rng, scene = training_scene(seed, index)
    name = training_name(index)
    image = f"{name}.png"
    save_image(scene, out / "images" / image, SIDE)
    makers = (caption_record, conversation_record, short_record)
    caption, conversation, short = (make(rng, scene, name, image) for make in makers)
    return frozenset(scene.items), caption, conversation, short


def with_chat(records: list[Record], chat: list[Record], seed: int) -> list[Record]:
    """Add text-only records, each as often as it takes for their share, and mix all."""
    wanted = round(len(records) * CHAT_SHARE / (1 - CHAT_SHARE)) if chat else 0
    mixed = [*records, *itertools.islice(itertools.cycle(chat), wanted)]
    random.Random(seed).shuffle(mixed)
    return mixed


def generate(out: Path, seed: int, scenes: int, test_questions: int, chat: list[Record]) -> None:
    """Write ``captions.json``, ``conversations.json``, ``short.json`` and ``images/`` to train on, and the tests.

    Each file is written atomically.
    """
    make = functools.partial(training_records, out, seed)
    with multiprocessing.get_context("spawn").Pool() as pool:  # not by fork, which may inherit locks
        made = pool.imap(make, range(scenes), chunksize=100)
        looks, captions, conversations, short = zip(*tqdm(made, desc="training scenes", total=scenes), strict=True)
    files = {
        "captions": list(captions),
        "conversations": with_chat(list(conversations), chat, seed),
        "short": with_chat(list(short), chat, seed),
    }
    for name, records in files.items():
        atomic_write(out / f"{name}.json", json.dumps(records, indent=0))
    write_tests(out, seed, test_questions, set(looks))


def write_tests(out: Path, seed: int, count: int, taken: set[Look]) -> None:
    """Write ``validation.jsonl`` and ``test.jsonl`` with their images, none of which looks like one of ``taken``."""
    splits: tuple[Split, ...] = ("validation", "test")
    for split in splits:
        asked = tqdm(questions(out, split, seed, count, taken), desc=split, total=count)
        atomic_write(out / f"{split}.jsonl", "".join(json.dumps(record) + "\n" for record in asked))


def questions(out: Path, split: Split, seed: int, count: int, taken: set[Look]) -> Iterator[dict[str, Any]]:
    """Yield ``count`` question records, one a scene, their kinds in turn, in wordings that training does not have."""
    kinds, index = list(KINDS), 0
    for number in range(count):
        kind, short = kinds[number % len(kinds)], SHORT_TESTS[number // len(kinds) % len(SHORT_TESTS)]
        record = None
        while record is None:
            rng = scene_rng(split, seed, index)
            index += 1
            scene = sample_scene(rng, split)
            if frozenset(scene.items) not in taken:
                record = test_question(rng, scene, kind, short)
        taken.add(frozenset(scene.items))
        image = f"{split}/{number // 1000:03d}/{number:06d}.png"
        save_image(scene, out / "images" / image, SIDE)
        yield {"question_id": number, "image": image, **record}


def main() -> None:
    """Run the program with the command line's flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0, help="seed of the world; another one makes another world")
    parser.add_argument("--scenes", type=int, default=60000, help="number of training scenes")
    parser.add_argument("--test-questions", type=int, default=3000, help="number of questions in each held-out split")
    parser.add_argument("--chat", type=Path, help="chat.json, of playground.smol.chat; by default no text-only records")
    args = parser.parse_args()
    if args.scenes < 1 or args.test_questions < 1:
        parser.error("--scenes and --test-questions take whole numbers from 1 up")
    chat = json.loads(args.chat.read_text(encoding="utf-8")) if args.chat else []
    generate(args.out, args.seed, args.scenes, args.test_questions, chat)


if __name__ == "__main__":
    main()
