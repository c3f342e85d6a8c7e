"""Log of visitors' votes on answers: one JSON object a line, and the images in files named by their digests."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

from llava.files.atomic_write import atomic_write
from llava.serve.web.conversation_state import WebChat

MAX_LOG_BYTES = 256 * 1024 * 1024  # of a day's file; a vote that would exceed it is refused
VOTES = ("upvote", "downvote", "flag")


class VoteLog:
    """Writes ``YYYY-MM-DD-conv.json`` and ``serve_images/DIGEST.png`` below a folder. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()

    def add(self, vote: str, chat: WebChat) -> bool:
        """Log a vote on the last answer; return False where the day's file is full."""
        line = json.dumps({"tstamp": round(time.time(), 3), "type": vote, "state": chat.record()}) + "\n"
        path = self.folder / time.strftime("%Y-%m-%d-conv.json", time.gmtime())
        with self._lock:
            self.folder.mkdir(parents=True, exist_ok=True)
            if path.exists() and path.stat().st_size + len(line) > MAX_LOG_BYTES:
                return False
            self._keep_images(chat)
            with path.open("a", encoding="utf-8") as stream:
                stream.write(line)
        return True

    def _keep_images(self, chat: WebChat) -> None:
        for image in (image for turn in chat.turns for image in turn.images):
            target = self.folder / "serve_images" / f"{image.digest}.png"
            if not target.exists():
                atomic_write(target, image.png)
