"""Reads POPE's labels, yes or no, and gives each question of a category its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llava.errors import DataError
from llava.files.fields import required_field, shown
from llava.files.jsonl import Record, read_records

LABELS = ("yes", "no")

Key = tuple[str, str]  # image, and the question's first line


def read_labels(file: Path) -> list[Record]:
    """Read a category's labels: JSON lines with ``label``. Raises ``DataError`` for labels other than ``LABELS``."""
    records = read_records(file, "the label file")
    for number, record in enumerate(records, 1):
        label = required_field(record, "label", str, f"the label file {file}, line {number}")
        if label not in LABELS:
            raise DataError(f"the label file {file}, line {number}: 'label' is {shown(label)}; expected 'yes' or 'no'")
    return records


def labels_of(questions: Sequence[Record], file: Path) -> list[str]:
    """Return the labels of a category's questions, in the questions' order.

    A label belongs to the question with its image and text; where these are not in both files, or differ in wording,
    to the question at its position. Raises ``DataError`` for labels of other images, or not one for each question.
    """
    records = read_labels(file)
    if len(records) != len(questions):
        raise DataError(f"{file}: {len(questions)} answers, but {len(records)} labels; expected one for one")
    asked, labelled = ([_key(record) for record in side] for side in (questions, records))
    if None not in asked and len(set(asked)) == len(asked) and set(asked) == set(labelled):
        found = {key: record["label"] for key, record in zip(labelled, records, strict=True)}
        return [found[key] for key in asked]
    for number, (question, record) in enumerate(zip(questions, records, strict=True), 1):
        images = question.get("image"), record.get("image")
        misplaced = _key(record) in asked and _key(record) != _key(question)
        if (None not in images and images[0] != images[1]) or (_key(record) and misplaced):
            raise DataError(
                f"{file}, line {number} is not about the category's question at that position, "
                f"{shown(question['question_id'])}, but about {shown(images[1])}, {shown(record.get('text'))}; "
                "is it another set?"
            )
    return [record["label"] for record in records]


def _key(record: Record) -> Key | None:
    image, text = record.get("image"), record.get("text")
    return (image, text.partition("\n")[0].strip()) if isinstance(image, str) and isinstance(text, str) else None
