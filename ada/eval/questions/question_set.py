"""Defines sets of questions, with a mark for every answer and, for a benchmark, its own scorer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from llava.eval.answering.questions import Question, images_fingerprint
from llava.files.jsonl import Record

Figures = dict[str, float | None]
"""A scorer's figures by name; None where one is undefined."""


@dataclass(frozen=True)
class Item:
    """One question with its ``kind``, and its ``truth`` as people read it.

    ``mark`` returns whether an answer's record, of the shape that the programs in ``llava/eval`` write, is right.
    """

    question: Question
    kind: str
    truth: str
    mark: Callable[[Record], bool]

    def record(self, text: str) -> Record:
        """Return the answer as the scorers read it."""
        return {**self.question.fields, "text": text, **self.question.after}

    def is_right(self, text: str) -> bool:
        """Return whether this answer is right."""
        return self.mark(self.record(text))


@dataclass(frozen=True)
class QuestionSet:
    """Questions that are asked and scored as one.

    ``name`` is also a folder's name; ``score`` is the benchmark's own scorer: records in order -> figures.
    """

    name: str
    title: str
    items: Sequence[Item]
    score: Callable[[Sequence[Record]], Figures] = lambda records: {}

    @property
    def kinds(self) -> list[str]:
        """Kinds of question, in the order in which they first appear."""
        return list(dict.fromkeys(item.kind for item in self.items))

    @property
    def fingerprint(self) -> str:
        """Hash of everything that is asked, images aside, and of the truths."""
        digest = hashlib.sha256()
        for item in self.items:
            seen = [item.question.fields, item.question.text, item.kind, item.truth]
            digest.update(json.dumps(seen, sort_keys=True, default=str).encode())
        return digest.hexdigest()[:16]

    @property
    def images(self) -> str:
        """Hash of the images that are asked about, by name, size and both ends of their files."""
        return images_fingerprint(item.question for item in self.items)


def asked_by(program: ModuleType, question_file: Path, *image_folders: Path, **options: Any) -> list[Question]:
    """Read a question file as one of the programs ``llava.eval.model_vqa*`` asks it."""
    questions: list[Question] = program.read_questions(question_file, *image_folders, **options)
    return questions
