"""Reads and writes JSON-lines files; one that grows batch by batch has another name until it is complete."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from llava.errors import DataError, OptionError
from llava.files.atomic_write import atomic_write

if sys.platform != "win32":
    import fcntl

Record = dict[str, Any]


class RecordFile:
    """A JSON-lines file: ``path`` once it is complete, ``path.part`` until then.

    complete: whether it has its final name. records: what is on the disk, in the order written.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.part = path, path.with_name(path.name + ".part")
        self.complete = path.exists()
        self.records: list[Record] = []
        self._kept = b""  # what of the part is known: all but a line that was cut off by a kill
        self._stream: BinaryIO | None = None  # held open, and locked, from the first batch on
        if self.complete:
            self.records = _parsed(read_text(path, "the file"), path)
        elif self.part.exists():
            self._kept = _complete_lines(_read(self.part, "the unfinished file"))
            self.records = _parsed(_decoded(self._kept, self.part, "the unfinished file"), self.part)

    def append(self, records: Sequence[Record]) -> None:
        """Add a batch; what is on the disk then survives a kill.

        Raises ``OptionError`` for a complete file, and where another process is writing the file, or has since it was
        read: perhaps one that a killed script has left running.
        """
        if self.complete:
            raise OptionError(
                f"{self.path} is complete, and there is more to add to it; remove it, or name another file"
            )
        if self._stream is None:
            self.part.parent.mkdir(parents=True, exist_ok=True)
            self._stream = _locked(self.part, self._kept, self.path)
        self._stream.write(lines_of(records).encode("utf-8"))
        self._stream.flush()
        self.records += records

    def reopen(self) -> None:
        """Give a complete file the name of an unfinished one again, so that more can be added."""
        if self.complete:
            self._kept = _complete_lines(_read(self.path, "the file"))
            self.path.replace(self.part)
            self.complete = False

    def finish(self, records: Iterable[Record]) -> None:
        """Give the file its final name, with these records in this order; a complete file stays as it is."""
        if self.complete:
            return
        atomic_write(self.path, lines_of(records))
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        self.part.unlink(missing_ok=True)
        self.complete = True


def _complete_lines(content: bytes) -> bytes:
    return content[: content.rfind(b"\n") + 1]


def _locked(path: Path, kept: bytes, final: Path) -> BinaryIO:
    """Open the file to append after the lines that are ``kept``, and lock it until this process closes it or ends.

    Raises OptionError where another process has it, or has changed it.
    """
    stream = path.open("a+b")
    if sys.platform != "win32":
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            stream.close()
            raise OptionError(f"another process is writing {path}; wait for it, or end it") from error
    stream.seek(0)
    if _complete_lines(stream.read()) != kept or final.exists():
        stream.close()
        raise OptionError(f"another process has written {path} meanwhile; start again, to continue after what is there")
    stream.truncate(len(kept))
    return stream


def lines_of(records: Iterable[Record]) -> str:
    """Format records as JSON lines: one object a line."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _parsed(text: str, path: Path) -> list[Record]:
    records = []
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: answers may hold other line ends
        if not line.strip():
            continue
        record = parse_json(line, f"{path}, line {number}")
        if not isinstance(record, dict):
            raise DataError(f"{path}, line {number} is {line[:40]!r}; expected a JSON object")
        records.append(record)
    return records


def read_records(path: Path, flag: str) -> list[Record]:
    """Read every line of the JSON-lines file that ``flag`` names. Raises ``DataError`` where it holds none."""
    records = _parsed(read_text(path, flag), path)
    if not records:
        raise DataError(f"{flag} {path} is empty; expected one JSON object a line")
    return records


def read_json(path: Path, flag: str, any_text: bool = False) -> Any:
    """Read the JSON file that ``flag`` names. Raises ``DataError`` as ``parse_json`` does."""
    return parse_json(read_text(path, flag), f"{flag} {path}", any_text)


def parse_json(text: str, what: str, any_text: bool = False) -> Any:
    """Parse JSON. Raises ``DataError``, which begins with ``what``, for text that is not JSON, for an object with the
    same name twice, and for what cannot be written again: half of a surrogate pair is no character.

    any_text: take such halves, for a caller that names the record they are in.
    """

    def unique(pairs: list[tuple[str, Any]]) -> Record:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in found if names.count(name) > 1)
            raise DataError(f"{what} holds {twice!r} twice in an object; is it two runs in one file?")
        return found

    try:
        value = json.loads(text, object_pairs_hook=unique)
        if not any_text and "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{what} holds {error.object[error.start]!a}, half of a surrogate pair") from error
    except RecursionError as error:
        raise DataError(f"{what} is nested too deeply to be read") from error
    except ValueError as error:  # also integers of thousands of digits
        raise DataError(f"{what} is not JSON: {error}") from error
    return value


def read_text(path: Path, flag: str) -> str:
    """Read the text file that ``flag`` names. Raises ``DataError`` where it cannot be read."""
    return _decoded(_read(path, flag), path, flag).replace("\r\n", "\n").replace("\r", "\n")


def _read(path: Path, flag: str) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name that holds a null byte
        raise DataError(f"{flag} {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _decoded(content: bytes, path: Path, flag: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{flag} {path} is not UTF-8 text: {error}") from error
