"""What visitors think of answers: one JSON object a line, and the pictures beside it by their digests."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

from llava.serve.web.conversation_state import WebChat

MAX_LOG_BYTES = 256 * 1024 * 1024  # a day's file; what would go beyond is refused
VOTES = ("upvote", "downvote", "flag")


class VoteLog:
    """Writes ``YYYY-MM-DD-conv.json`` and ``serve_images/DIGEST.png`` below a folder. Safe between threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()

    def add(self, vote: str, chat: WebChat) -> bool:
        """Note a vote on the last answer. False where the day's file is full."""
        line = json.dumps({"tstamp": round(time.time(), 3), "type": vote, "state": chat.record()}) + "\n"
        path = self.folder / time.strftime("%Y-%m-%d-conv.json", time.gmtime())
        with self._lock:
            self.folder.mkdir(parents=True, exist_ok=True)
            if path.exists() and path.stat().st_size + len(line) > MAX_LOG_BYTES:
                return False
            self._keep_pictures(chat)
            with path.open("a", encoding="utf-8") as stream:
                stream.write(line)
        return True

    def _keep_pictures(self, chat: WebChat) -> None:
        for turn in chat.turns:
            for picture in turn.pictures:
                target = self.folder / "serve_images" / f"{picture.digest}.png"
                if not target.exists():
                    target.parent.mkdir(exist_ok=True)
                    part = target.with_suffix(".part")
                    part.write_bytes(picture.png)
                    part.replace(target)
