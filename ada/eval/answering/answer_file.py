"""The answers of one run: appended batch by batch under another name, in order and renamed once all are there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llava.errors import OptionError
from llava.files.atomic_write import atomic_write
from llava.files.jsonl import RecordFile

SOURCE = "source.json"


@dataclass(frozen=True)
class GivenAnswer:
    """One answer and its price. ``number``: the question's place in its set, from 0; ``share`` of all switches that
    ran, in [0, 1]; ``plan``: which ones, as ``ExecutionPlan.to_short_json`` writes it."""

    number: int
    question_id: Any
    text: str
    share: float
    prefill_gflops: float
    plan: dict[str, Any]


@dataclass(frozen=True)
class GivenTimes:
    """How long one answer took, asked alone: milliseconds to its first token, of every token behind it, and to its
    first token when the same was asked again at once, so that nothing was left to be cut."""

    number: int
    first_token_ms: float
    token_ms: list[float]
    again_ms: float


class AnswerFile:
    """``answers`` (of ``kind``) by question, those on the disk: in ``path`` once it is whole, until then in
    ``path.part``."""

    def __init__(self, path: Path, kind: type = GivenAnswer) -> None:
        self.path, self.file = path, RecordFile(path)
        self.answers = {record["number"]: kind(**record) for record in self.file.records}

    def holds(self, numbers: Iterable[int]) -> bool:
        """Is every one of these questions answered?"""
        return all(number in self.answers for number in numbers)

    def append(self, answers: Sequence[Any]) -> None:
        """Add a batch; what is on the disk then survives a kill."""
        self.file.append([asdict(answer) for answer in answers])
        self.answers.update({answer.number: answer for answer in answers})

    def finish(self, numbers: Sequence[int]) -> list[Any]:
        """Give the file its final name, with the answers to ``numbers`` in that order; returns them."""
        own = [self.answers[number] for number in numbers]
        self.file.finish(asdict(answer) for answer in own)
        return own


def check_source(folder: Path, source: dict[str, Any]) -> None:
    """Raise ``OptionError`` where ``folder`` holds answers that come from elsewhere."""
    note = folder / SOURCE
    if not note.exists():
        return
    before = json.loads(note.read_text(encoding="utf-8"))
    if changed := [key for key in source if before.get(key) != source[key]]:
        raise OptionError(
            f"{folder} holds answers with another {', '.join(changed)}; remove it, or choose another --out"
        )


def note_source(folder: Path, source: dict[str, Any]) -> None:
    """Note what the answers that ``folder`` is to hold come from."""
    atomic_write(folder / SOURCE, json.dumps(source, indent=1) + "\n")
