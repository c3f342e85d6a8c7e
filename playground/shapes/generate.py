"""Writes a shapes world: images, LLaVA's training files, question files of the held-out splits.

python -m playground.shapes.generate --out playground/data/shapes --seed 0 --scenes 20000
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import multiprocessing
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from llava.files.atomic_write import atomic_write
from playground.shapes.benchmarks import write_benchmarks
from playground.shapes.conversations import Record, caption_record, question_record, short_record, text_record
from playground.shapes.questions import KINDS
from playground.shapes.saving import save_image
from playground.shapes.scene import Item, Scene, Split, sample_scene, scene_rng

Look = frozenset[Item]  # what two scenes that look the same have in common
TrainingRecords = tuple[Look, Record, Record, Record, Record]

SHARED_SCENES = 2000  # from so many on, processes share the work; starting them takes seconds

MAX_SHAPES = (2, 4, 6)  # in a training image, in turn: easy images teach what hard ones only hint at
WRITTEN = 0.6  # share of the training images with a word, and with a digit: there are many to learn


def main() -> None:
    """Run the program with the command line's flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0, help="seed of the world; another one makes another world")
    parser.add_argument("--scenes", type=int, default=20000, help="number of training scenes")
    parser.add_argument("--test-questions", type=int, default=5000, help="number of questions in each held-out split")
    parser.add_argument(
        "--benchmarks", type=int, metavar="N", help="also write N questions of every benchmark into OUT/eval"
    )
    parser.add_argument(
        "--only-benchmarks",
        action="store_true",
        help="write benchmarks alone, for the world of --seed and --scenes",
    )
    parser.add_argument(
        "--only-tests",
        action="store_true",
        help="write no training data: held-out questions for the world of --seed and --scenes",
    )
    args = parser.parse_args()
    if args.scenes < 1 or args.test_questions < 1:
        parser.error("--scenes and --test-questions take whole numbers from 1 up")
    if (args.benchmarks is not None and args.benchmarks < 1) or (args.only_benchmarks and not args.benchmarks):
        parser.error("--benchmarks takes a whole number from 1 up; --only-benchmarks needs it")
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
    """Write ``texts.json``, ``captions.json``, ``conversations.json``, ``short.json`` and ``images/`` to train on,
    ``validation.jsonl`` and ``test.jsonl`` with their images; each file is written atomically.
    """
    make = functools.partial(training_records, out, seed)
    with contextlib.ExitStack() as stack:
        made: Iterable[TrainingRecords] = map(make, range(scenes))
        if scenes >= SHARED_SCENES:
            # Not by fork, which may inherit locks that threads of this process hold, and then waits for ever.
            pool = stack.enter_context(multiprocessing.get_context("spawn").Pool())
            made = pool.imap(make, range(scenes), chunksize=100)
        looks, *files = zip(*tqdm(made, desc="training scenes", total=scenes), strict=True)
    for name, records in zip(("captions", "conversations", "texts", "short"), files, strict=True):
        atomic_write(out / f"{name}.json", json.dumps(records, indent=0))
    write_tests(out, seed, test_questions, set(looks))


def write_tests(out: Path, seed: int, test_questions: int, taken: set[Look]) -> None:
    """Write ``validation.jsonl`` and ``test.jsonl`` with their images, none of which looks like one of ``taken``."""
    splits: tuple[Split, ...] = ("validation", "test")
    for split in splits:
        asked = tqdm(questions(out, split, seed, test_questions, taken), desc=split, total=test_questions)
        atomic_write(out / f"{split}.jsonl", "".join(json.dumps(r) + "\n" for r in asked))


def training_scene(seed: int, index: int) -> tuple[random.Random, Scene]:
    """Return training scene number ``index`` of a world, with its generator as it stands after the scene."""
    rng = scene_rng("train", seed, index)
    return rng, sample_scene(rng, "train", MAX_SHAPES[index % len(MAX_SHAPES)], WRITTEN)


def training_records(out: Path, seed: int, index: int) -> TrainingRecords:
    """Draw a training scene; return its look, and its records for stage 1, stage 2, the language stage and budgets."""
    rng, scene = training_scene(seed, index)
    name = training_name(index)
    save_image(scene, out / "images" / f"{name}.png")
    image = f"{name}.png"
    # In this order: each goes on with the generator where the one before has left it.
    caption, conversation = (make(rng, scene, name, image) for make in (caption_record, question_record))
    text = text_record(rng, scene, name)
    return frozenset(scene.items), caption, conversation, text, short_record(rng, scene, name, image)


def training_name(index: int) -> str:
    """Return a training image's name without its ending, below ``images/``: a thousand to a folder."""
    return f"train/{index // 1000:03d}/{index:06d}"


def questions(out: Path, split: Split, seed: int, count: int, taken: set[Look]) -> Iterator[dict[str, Any]]:
    """Yield ``count`` question records, one a scene, their kinds in turn; no scene that is ``taken``, nor one twice.

    A scene of a single shape comes up twice by chance now and then, whatever the seeds.
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
