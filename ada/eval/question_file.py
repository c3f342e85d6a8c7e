"""Question files: one JSON object a line with ``question_id``, ``image``, ``text``, ``category`` and ``answer``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.errors import DataError

FIELDS = ("question_id", "image", "text", "category", "answer")


@dataclass(frozen=True)
class Question:
    """One line. ``text`` is the whole question, its instruction included; ``category`` is its kind."""

    question_id: int | str
    image: str
    text: str
    category: str
    answer: str


def read_questions(path: Path, image_folder: Path) -> list[Question]:
    """Every question of a file. Raises ``DataError`` for what cannot be used, pictures that are missing included."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"--question-file {path} cannot be read: {error.strerror}") from error
    questions = [_question(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not questions:
        raise DataError(f"--question-file {path} holds no questions")
    ids = {question.question_id for question in questions}
    if len(ids) < len(questions):
        raise DataError(f"{path}: {len(questions)} questions, but only {len(ids)} different question_ids")
    missing = [q.image for q in questions if not (image_folder / q.image).is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(questions)} pictures are not in --image-folder {image_folder}, the first is "
            f"{missing[0]}"
        )
    return questions


def _question(line: str, place: str) -> Question:
    try:
        fields: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{place} is not JSON: {error}") from error
    lacking = [name for name in FIELDS if not isinstance(fields, dict) or not isinstance(fields.get(name), (str, int))]
    if lacking:
        raise DataError(f"{place} lacks {', '.join(lacking)}; expected texts {', '.join(FIELDS)}")
    return Question(fields["question_id"], *(str(fields[name]) for name in FIELDS[1:]))
