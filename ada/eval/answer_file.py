"""The answers of one run: appended batch by batch under another name, in order and renamed once all are there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llava.errors import OptionError
from llava.eval.record_file import RecordFile, write_whole


@dataclass(frozen=True)
class GivenAnswer:
    """One answer and its price. ``share`` of all switches that ran, in [0, 1]."""

    question_id: int | str
    text: str
    share: float
    prefill_gflops: float


class AnswerFile:
    """``answers`` by question, those on the disk: in ``path`` once it is whole, in ``path.part`` until then."""

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, RecordFile(path)
        self.answers = {record["question_id"]: GivenAnswer(**record) for record in self.file.records}

    def holds(self, ids: Iterable[int | str]) -> bool:
        """Is every one of these questions answered?"""
        return all(question_id in self.answers for question_id in ids)

    def append(self, answers: Sequence[GivenAnswer]) -> None:
        """Add a batch; what is on the disk then survives a kill."""
        self.file.append([asdict(answer) for answer in answers])
        self.answers.update({answer.question_id: answer for answer in answers})

    def finish(self, ids: Sequence[int | str]) -> None:
        """Give the file its final name, answers in the order of ``ids``."""
        self.file.finish(asdict(self.answers[question_id]) for question_id in ids)


def check_source(folder: Path, source: dict[str, Any]) -> None:
    """Note what the answers in ``folder`` come from. Raises ``OptionError`` where older ones come from elsewhere."""
    note = folder / "source.json"
    if note.exists():
        before = json.loads(note.read_text(encoding="utf-8"))
        changed = [key for key in source if before.get(key) != source[key]]
        if changed:
            raise OptionError(
                f"{folder} holds answers with another {', '.join(changed)}; remove it, or choose another --out"
            )
        return
    write_whole(note, json.dumps(source, indent=1) + "\n")
