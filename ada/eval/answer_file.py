"""The answers of one run: appended batch by batch under another name, in order and renamed once all are there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llava.errors import OptionError


@dataclass(frozen=True)
class GivenAnswer:
    """One answer and its price. ``share`` of all switches that ran, in [0, 1]."""

    question_id: int | str
    text: str
    share: float
    prefill_gflops: float


class AnswerFile:
    """``path`` once it is whole, ``path.part`` until then."""

    def __init__(self, path: Path) -> None:
        self.path, self.part = path, path.with_name(path.name + ".part")
        self.answers: dict[int | str, GivenAnswer] = {}
        if path.exists():
            self._read(path.read_text(encoding="utf-8"))
        elif self.part.exists():
            whole = self.part.read_bytes()
            whole = whole[: whole.rfind(b"\n") + 1]  # a line that was cut off by a kill goes
            self._write(self.part, whole)
            self._read(whole.decode("utf-8"))

    def holds(self, ids: Iterable[int | str]) -> bool:
        """Is every one of these questions answered?"""
        return all(question_id in self.answers for question_id in ids)

    def append(self, answers: Sequence[GivenAnswer]) -> None:
        """Add a batch; what is on the disk then survives a kill."""
        self.part.parent.mkdir(parents=True, exist_ok=True)
        with self.part.open("a", encoding="utf-8") as stream:
            stream.write("".join(_line(answer) for answer in answers))
        self.answers.update({answer.question_id: answer for answer in answers})

    def finish(self, ids: Sequence[int | str]) -> None:
        """Give the file its final name, answers in the order of ``ids``."""
        if self.path.exists():
            return
        self._write(self.part, "".join(_line(self.answers[question_id]) for question_id in ids).encode())
        self.part.replace(self.path)

    def _read(self, text: str) -> None:
        for line in text.splitlines():
            answer = GivenAnswer(**json.loads(line))
            self.answers[answer.question_id] = answer

    @staticmethod
    def _write(path: Path, content: bytes) -> None:
        beside = path.with_name(path.name + ".new")
        beside.write_bytes(content)
        beside.replace(path)


def _line(answer: GivenAnswer) -> str:
    return json.dumps(asdict(answer), ensure_ascii=False) + "\n"


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
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / "source.json.new"
    beside.write_text(json.dumps(source, indent=1) + "\n", encoding="utf-8")
    beside.replace(note)
