"""Reads question files: JSON lines with ``question_id``, ``image``, ``text``, ``category`` and ``answer``."""

from __future__ import annotations

import functools
from pathlib import Path

from ada.eval.questions.exact_match import is_right
from ada.eval.questions.question_set import Item, QuestionSet
from llava.errors import DataError
from llava.eval.answering.questions import Question, image_opener, question_text
from llava.files.jsonl import Record, read_records

FIELDS = ("question_id", "image", "text", "category", "answer")


def read_question_file(path: Path, image_folder: Path) -> QuestionSet:
    """Read every question of a file: ``category`` is its kind; an answer is right that matches ``answer``.

    Raises ``DataError`` for lines that cannot be used, ids that repeat, and images that are missing.
    """
    lines = read_records(path, "--question-file")
    for number, line in enumerate(lines, 1):
        if lacking := [name for name in FIELDS if not isinstance(line.get(name), (str, int))]:
            raise DataError(f"{path}, line {number} lacks {', '.join(lacking)}; expected texts {', '.join(FIELDS)}")
    ids = {line["question_id"] for line in lines}
    if len(ids) < len(lines):
        raise DataError(f"{path}: {len(lines)} questions, but only {len(ids)} different question_ids")
    missing = [line["image"] for line in lines if not (image_folder / str(line["image"])).is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(lines)} images are not in --image-folder {image_folder}, the first is {missing[0]}"
        )
    return QuestionSet(path.stem, f"{path.stem} questions", [_item(line, image_folder) for line in lines])


def _item(line: Record, image_folder: Path) -> Item:
    text, truth = str(line["text"]), str(line["answer"])
    where = f"--question-file: question {line['question_id']}"
    question_text(text, True, where)
    question = Question(line["question_id"], text, text, image_opener(image_folder, str(line["image"]), where))
    return Item(question, str(line["category"]), truth, functools.partial(_matches, truth))


def _matches(truth: str, record: Record) -> bool:
    return is_right(record["text"], truth)
