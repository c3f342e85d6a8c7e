"""Log of visitors' votes on answers: one JSON object a line, and the images in files named by their digests."""

from __future__ import annotations

import json
import threading
import time
from io import SEEK_END, RawIOBase
from pathlib import Path

from llava.files.atomic_write import atomic_write
from llava.serve.web.conversation_state import WebChat

MAX_LOG_BYTES = 256 * 1024 * 1024  # of a day's file; a vote that would exceed it is refused
BLOCK = 64 * 1024  # bytes that are read at a time
VOTES = ("upvote", "downvote", "flag")


class VoteLog:
    """Writes ``YYYY-MM-DD-conv.json`` and ``serve_images/DIGEST.png`` below a folder. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()

    def add(self, vote: str, chat: WebChat) -> bool:
        """Log a vote on the last answer; return False where the day's file is full.

        Raises OSError where the disk takes it not; then the log holds what it held before.
        """
        record = {"tstamp": round(time.time(), 3), "type": vote, "state": chat.record()}
        line = json.dumps(record).encode() + b"\n"
        path = self.folder / time.strftime("%Y-%m-%d-conv.json", time.gmtime())
        with self._lock:
            self.folder.mkdir(parents=True, exist_ok=True)
            if path.exists() and path.stat().st_size + len(line) > MAX_LOG_BYTES:
                return False
            self._keep_images(chat)
            append_line(path, line)
        return True

    def _keep_images(self, chat: WebChat) -> None:
        for image in (image for turn in chat.turns for image in turn.images):
            target = self.folder / "serve_images" / f"{image.digest}.png"
            if not target.exists():
                atomic_write(target, image.png)


def append_line(path: Path, line: bytes) -> None:
    """Append a line of bytes, or nothing where that fails with OSError.

    What a process left of a line when it was killed is removed before; no later line joins it.
    """
    with path.open("a+b", buffering=0) as file:
        size = _end_of_lines(file)
        file.truncate(size)
        try:
            rest = line
            while rest:  # a disk that is almost full takes a part
                rest = rest[file.write(rest) or 0 :]
        except OSError:
            file.truncate(size)
            raise


def _end_of_lines(file: RawIOBase) -> int:
    """Return the position after a file's last line break, 0 where it has none."""
    end = file.seek(0, SEEK_END)
    while end > 0:
        start = max(0, end - BLOCK)
        file.seek(start)
        found = (file.read(end - start) or b"").rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
