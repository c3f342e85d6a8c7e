"""Reads checkpoint folders whose JSON files an editor has saved with a byte order mark, which libraries refuse."""

from __future__ import annotations

import codecs
import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from llava.errors import CheckpointError

Result = TypeVar("Result")


def has_mark(path: Path) -> bool:
    """Return whether a file begins with UTF-8's byte order mark."""
    with path.open("rb") as file:
        return file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8


def read_without_marks(folder: Path, read: Callable[[Path], Result]) -> Result:
    """Return what ``read(folder)`` does; where it fails and a JSON file has a mark, what it reads without the marks.

    It then gets a temporary folder: names that it keeps of that are the caller's to set.
    """
    try:
        return read(folder)
    except (OSError, ValueError, CheckpointError):
        with _without_marks(folder) as readable:
            if readable is None:
                raise
            return read(readable)


@contextlib.contextmanager
def _without_marks(folder: Path) -> Iterator[Path | None]:
    """Give a folder of links in which the JSON files have no mark; None where none has one."""
    marked = [path for path in folder.glob("*.json") if path.is_file() and has_mark(path)]
    if not marked:
        yield None
        return
    with tempfile.TemporaryDirectory() as temporary:
        for path in folder.iterdir():
            link = Path(temporary, path.name)
            if path in marked:
                link.write_bytes(path.read_bytes().removeprefix(codecs.BOM_UTF8))
            else:
                os.symlink(path.absolute(), link)
        yield Path(temporary)
