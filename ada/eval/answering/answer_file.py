"""Stores the answers of one run: appended batch by batch to a partial file, in order and renamed once complete."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from llava.errors import OptionError
from llava.eval.answering.questions import IMAGES, shown_settings
from llava.files.atomic_write import atomic_write
from llava.files.jsonl import RecordFile

SOURCE = "source.json"


@dataclass(frozen=True)
class GivenRecord:
    """A line of an answer file; ``number``: the question's position in its set, from 0."""

    number: int


@dataclass(frozen=True)
class GivenAnswer(GivenRecord):
    """One answer and its cost.

    ``share`` of all switches that ran, in [0, 1]; ``plan``: which ones, as ``ExecutionPlan.to_short_json`` writes it;
    ``image_tokens``: how many there are (``all``), enter the decoder (``kept``), are read by later layers (``late``);
    None in files of earlier releases.
    """

    question_id: Any
    text: str
    share: float
    prefill_gflops: float
    plan: dict[str, Any]
    image_tokens: dict[str, int] | None = None


@dataclass(frozen=True)
class GivenTimes(GivenRecord):
    """How long one answer took, asked alone, in milliseconds.

    ``first_token_ms``: time to first token (TTFT); ``token_ms``: of every further token; ``again_ms``: TTFT of the same
    question asked again at once, when the plan cache is warm.
    """

    first_token_ms: float
    token_ms: list[float]
    again_ms: float


Given = TypeVar("Given", bound=GivenRecord)


class AnswerFile(Generic[Given]):
    """The answers of one run on the disk: in ``path`` once all are there, until then in ``path.part``.

    ``kind``: the dataclass that a record is read as; ``answers``: by the question's number.
    """

    def __init__(self, path: Path, kind: type[Given]) -> None:
        self.path, self.file = path, RecordFile(path)
        self.answers: dict[int, Given] = {record["number"]: kind(**record) for record in self.file.records}

    def holds(self, numbers: Iterable[int]) -> bool:
        """Return whether every one of these questions is answered."""
        return all(number in self.answers for number in numbers)

    def reopen(self) -> None:
        """Let answers be added to a complete file."""
        self.file.reopen()

    def remove(self) -> None:
        """Remove the file, complete or not."""
        for path in (self.file.path, self.file.part):
            path.unlink(missing_ok=True)

    def append(self, answers: Sequence[Given]) -> None:
        """Add a batch of answers, which then survive a kill of the process."""
        self.file.append([asdict(answer) for answer in answers])
        self.answers.update({answer.number: answer for answer in answers})

    def finish(self, numbers: Iterable[int]) -> list[Given]:
        """Give the file its final name, with the answers to ``numbers`` in that order; return them."""
        own = [self.answers[number] for number in numbers]
        self.file.finish(asdict(answer) for answer in own)
        return own


def check_source(folder: Path, source: dict[str, Any]) -> None:
    """Raise ``OptionError`` where ``folder`` holds answers of another source."""
    note = folder / SOURCE
    if not note.exists():
        return
    before = json.loads(note.read_text(encoding="utf-8"))
    # A note of an earlier release says nothing of images.
    compared = [key for key in source if key in before or not key.endswith(IMAGES)]
    if changed := [key for key in compared if before.get(key) != source[key]]:
        raise OptionError(
            f"{folder} holds answers with another {shown_settings(changed)}; remove it, or choose another --out"
        )


def note_source(folder: Path, source: dict[str, Any]) -> None:
    """Write down what the answers that ``folder`` is to hold depend on."""
    atomic_write(folder / SOURCE, json.dumps(source, indent=1) + "\n")
