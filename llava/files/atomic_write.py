"""Writes files atomically: a final name holds the old content or all of the new one, whenever the process is killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

UNFINISHED = "unfinished"  # the folder, inside the target, that ``atomic_folder`` writes into
WEIGHT_SUFFIXES = (".safetensors", ".bin")


@contextlib.contextmanager
def atomic_path(path: Path, keep_suffix: bool = True) -> Iterator[Path]:
    """Yield a temporary path in ``path``'s folder; rename it to ``path`` when the block succeeds.

    The folder is created where it is missing. Where the block raises, the temporary file is removed and ``path`` keeps
    what it had. Processes and threads that write the same path do not share a temporary file; the last rename wins.
    keep_suffix: the temporary name ends as ``path`` does, for writers that go by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix if keep_suffix else ""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part{suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write(path: Path, content: str | bytes) -> None:
    """Write ``content`` to ``path`` atomically; text as UTF-8, line ends as they are."""
    with atomic_path(path, keep_suffix=False) as temporary:  # no glob for such files may find it
        temporary.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder to write a checkpoint into; its files move to ``folder`` when the block succeeds.

    Weights move last: a process that is killed leaves nothing that looks finished. Where the block raises, nothing of
    what it wrote is left, and a folder that was there before keeps its files.
    """
    part, existed = folder / UNFINISHED, folder.exists()
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
    except BaseException:
        shutil.rmtree(part if existed else folder, ignore_errors=True)
        raise
    files = [path for path in part.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda path: path.suffix in WEIGHT_SUFFIXES):
        target = folder / path.relative_to(part)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    shutil.rmtree(part)
