"""Writes a shapes world: images, LLaVA's training files, question files of the held-out splits.

python -m playground.shapes.generate --out playground/data/shapes --seed 0 --scenes 20000
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from playground.shapes.benchmark_scenes import Look
from playground.shapes.benchmarks import write_benchmarks
from playground.shapes.conversations import Record, caption_record, question_record, short_record, text_record
from playground.shapes.questions import KINDS
from playground.shapes.saving import save_image, write_text
from playground.shapes.scene import Scene, Split, sample_scene, scene_rng

MAX_SHAPES = (2, 4, 6)  # of training images, in turn: simple images are learned first
WRITTEN = 0.6  # share of the training images with a word, and with a digit: there are many to learn


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0, help="seed of the world (default: %(default)s)")
    parser.add_argument("--scenes", type=int, default=20000, help="number of training scenes (default: %(default)s)")
    parser.add_argument(
        "--test-questions",
        type=int,
        default=5000,
        help="number of questions in each held-out split (default: %(default)s)",
    )
    parser.add_argument(
        "--benchmarks", type=int, metavar="N", help="write N questions of every benchmark into OUT/eval, too"
    )
    parser.add_argument(
        "--only-benchmarks",
        action="store_true",
        help="write only the benchmarks of the world that --seed and --scenes name",
    )
    parser.add_argument(
        "--only-tests",
        action="store_true",
        help="write only the held-out splits of the world that --seed and --scenes name",
    )
    args = parser.parse_args()
    if args.scenes < 1 or args.test_questions < 1:
        parser.error("--scenes and --test-questions take integers from 1 up")
    if (args.benchmarks is not None and args.benchmarks < 1) or (args.only_benchmarks and not args.benchmarks):
        parser.error("--benchmarks takes an integer from 1 up; --only-benchmarks needs it")
    if args.only_benchmarks and args.only_tests:
        parser.error("--only-benchmarks and --only-tests exclude each other")
    if not args.only_benchmarks and not args.only_tests:
        generate(args.out, args.seed, args.scenes, args.test_questions)
    if args.benchmarks or args.only_tests:
        taken = {frozenset(training_scene(args.seed, index)[1].items) for index in range(args.scenes)}
        if args.only_tests:
            write_tests(args.out, args.seed, args.test_questions, set(taken))
        if args.benchmarks:
            write_benchmarks(args.out / "eval", args.seed, args.benchmarks, taken)


def generate(out: Path, seed: int, scenes: int, test_questions: int) -> None:
    """Write the training files, ``images/``, and the question files of the held-out splits.

    The training files are ``texts.json``, ``captions.json``, ``conversations.json`` and ``short.json``.
    """
    with multiprocessing.Pool() as pool:
        made = pool.imap(functools.partial(training_records, out, seed), range(scenes), chunksize=100)
        looks, *files = zip(*tqdm(made, desc="training scenes", total=scenes), strict=True)
    for name, records in zip(("captions", "conversations", "texts", "short"), files, strict=True):
        write_text(out / f"{name}.json", json.dumps(records, indent=0))
    write_tests(out, seed, test_questions, set(looks))


def write_tests(out: Path, seed: int, test_questions: int, taken: set[Look]) -> None:
    """Write ``validation.jsonl`` and ``test.jsonl`` with their images, none of which is in ``taken``."""
    splits: tuple[Split, ...] = ("validation", "test")
    for split in splits:
        asked = tqdm(questions(out, split, seed, test_questions, taken), desc=split, total=test_questions)
        write_text(out / f"{split}.jsonl", "".join(json.dumps(r) + "\n" for r in asked))


def training_scene(seed: int, index: int) -> tuple[random.Random, Scene]:
    """Make training scene ``index`` of a world; return its random generator as it is after the scene, and the scene."""
    rng = scene_rng("train", seed, index)
    return rng, sample_scene(rng, "train", MAX_SHAPES[index % len(MAX_SHAPES)], WRITTEN)


def training_records(out: Path, seed: int, index: int) -> tuple[Look, Record, Record, Record, Record]:
    """Draw a training scene; return its items, and its records: caption, conversation, text, short."""
    rng, scene = training_scene(seed, index)
    name = training_name(index)
    save_image(scene, out / "images" / f"{name}.png")
    image = f"{name}.png"
    # In this order: all draw from one random generator.
    caption, conversation = (make(rng, scene, name, image) for make in (caption_record, question_record))
    text = text_record(rng, scene, name)
    return frozenset(scene.items), caption, conversation, text, short_record(rng, scene, name, image)


def training_name(index: int) -> str:
    """Return a training image's name in ``images/``, without its suffix: a thousand to a folder."""
    return f"train/{index // 1000:03d}/{index:06d}"


def questions(out: Path, split: Split, seed: int, count: int, taken: set[Look]) -> Iterator[dict[str, Any]]:
    """Yield ``count`` question records, one a scene, their kinds in turn.

    No scene is in ``taken``, and none comes twice, as scenes of a single shape would by chance.
    """
    kinds, index = list(KINDS), 0
    for number in range(count):
        kind = kinds[number % len(kinds)]
        while True:
            rng = scene_rng(split, seed, index)
            index += 1
            scene = sample_scene(rng, split)
            question = KINDS[kind](rng, scene)
            if question is not None and frozenset(scene.items) not in taken:
                break
        taken.add(frozenset(scene.items))
        image = f"{split}/{number // 1000:03d}/{number:06d}.png"
        save_image(scene, out / "images" / image)
        yield {
            "question_id": number,
            "image": image,
            "text": question.prompt,
            "category": kind,
            "answer": question.answer,
        }


if __name__ == "__main__":
    main()
