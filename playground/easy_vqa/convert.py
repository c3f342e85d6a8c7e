"""Converts the package easy-vqa to LLaVA's formats: conversations to train on, question files to be tested on.

python -m playground.easy_vqa.convert --out playground/data/easy-vqa
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from llava.errors import DataError, OptionError
from llava.files.atomic_write import atomic_path, atomic_write
from llava.program import run_program
from playground.shapes.conversations import Record, dialogue_record
from playground.shapes.questions import SHORT

Split = Literal["train", "test"]

TURNS = 5  # most questions of a training conversation
OPEN_FIRST = 0.5  # of the conversations start with what only the image shows: a colour or a shape, not yes or no
HELD_OUT = 20  # every 20th training image is for validation


class Asked(NamedTuple):
    """One of the package's questions; ``image`` is its image's number within the split."""

    text: str
    answer: str
    image: int

    @property
    def category(self) -> str:
        """The kind of question: ``colour`` or ``shape`` is asked for, ``presence`` of something, or its ``absence``."""
        words = self.text.rstrip("?").split()
        if words[0] == "what":
            return "colour" if "color" in words else "shape"
        return "absence" if {"no", "not"} & set(words) else "presence"

    @property
    def prompt(self) -> str:
        """The question as LLaVA's benchmarks ask: with the request for a short answer."""
        return f"{self.text}\n{SHORT}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code, 2 for a user error."""
    parser = argparse.ArgumentParser(
        prog="python -m playground.easy_vqa.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0, help="seed of the questions' order in a conversation")
    options = parser.parse_args(arguments)
    return run_program(lambda: convert(package_data(), options.out, options.seed))


def package_data() -> Path:
    """Return the data folder of the installed package. Raises ``OptionError`` where it is not installed."""
    spec = importlib.util.find_spec("easy_vqa")
    if spec is None or spec.origin is None:
        raise OptionError("the package easy-vqa is missing; it comes with the extra: pip install 'ada-llava[easy-vqa]'")
    return Path(spec.origin).parent / "data"


def convert(data: Path, out: Path, seed: int) -> None:
    """Write ``images/``, ``conversations.json`` and ``validation.jsonl`` from the package's training split and
    ``test.jsonl``, the last, from its test split.
    """
    answers = frozenset(_read(data / "answers.txt").split())
    train, test = (read_split(data, split, answers) for split in ("train", "test"))
    for split, asked in (("train", train), ("test", test)):
        copy_images(data / split / "images", out / "images" / split, {question.image for question in asked})
    learned = [question for question in train if question.image % HELD_OUT]
    held_out = [question for question in train if question.image % HELD_OUT == 0]
    records = list(conversations(learned, random.Random(seed)))
    atomic_write(out / "conversations.json", json.dumps(records, indent=0))
    atomic_write(out / "validation.jsonl", "".join(question_lines(held_out, "train")))
    atomic_write(out / "test.jsonl", "".join(question_lines(test, "test")))


def read_split(data: Path, split: Split, answers: frozenset[str]) -> list[Asked]:
    """Return a split's questions in the package's order.

    Raises ``DataError`` for a question that is not ``[text, answer, image]``.
    """
    path = data / split / "questions.json"
    try:
        rows: Any = json.loads(_read(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON: {error}; install the package anew") from error
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path} holds no list of questions; install the package anew")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, list) or [type(part) for part in row] != [str, str, int] or row[1] not in answers:
            raise DataError(
                f"{path}, question {number} is {row!r}; expected a question, its answer, one of the {len(answers)} in "
                f"{data / 'answers.txt'}, and its image's number"
            )
    return [Asked(*row) for row in rows]


def conversations(questions: Sequence[Asked], rng: random.Random) -> Iterator[Record]:
    """Yield conversations: an image's questions in random order, ``TURNS`` or fewer in each."""
    by_image: dict[int, list[Asked]] = defaultdict(list)
    for question in questions:
        by_image[question.image].append(question)
    for image, asked in by_image.items():
        rng.shuffle(asked)
        for start in range(0, len(asked), TURNS):
            turns = asked[start : start + TURNS]
            if rng.random() < OPEN_FIRST:
                turns.sort(key=lambda question: question.category not in ("colour", "shape"))
            dialogue = [(question.prompt, question.answer) for question in turns]
            yield dialogue_record(f"{image}-{start}", _image_path("train", image), dialogue)


def question_lines(questions: Sequence[Asked], split: Split) -> Iterator[str]:
    """Yield the lines of a question file, as ``ada.eval.sweep`` reads it."""
    for number, question in enumerate(questions):
        line = {
            "question_id": number,
            "image": _image_path(split, question.image),
            "text": question.prompt,
            "category": question.category,
            "answer": question.answer,
        }
        yield json.dumps(line) + "\n"


def copy_images(source: Path, target: Path, numbers: set[int]) -> None:
    """Copy the images that questions are about. Raises ``DataError`` where one is missing."""
    target.mkdir(parents=True, exist_ok=True)
    for number in sorted(numbers):
        try:
            with atomic_path(target / f"{number}.png") as temporary:
                shutil.copyfile(source / f"{number}.png", temporary)
        except FileNotFoundError as error:
            raise DataError(f"{source / f'{number}.png'} is missing, but questions are about it") from error


def _image_path(split: Split, image: int) -> str:
    return f"{split}/{image}.png"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; install the package easy-vqa anew") from error


if __name__ == "__main__":
    raise SystemExit(main())
