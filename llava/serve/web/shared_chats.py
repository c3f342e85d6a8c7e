"""Stores conversations that visitors give a link: one file each, the oldest deleted where they take too much."""

from __future__ import annotations

import base64
import json
import re
import secrets
from pathlib import Path
from typing import Any

from llava.errors import LlavaError
from llava.files.atomic_write import atomic_write
from llava.files.images import MIB
from llava.serve.web.conversation_state import Answered, Turn, WebChat
from llava.serve.web.uploaded_image import UploadedImage

MAX_BYTES = 1024 * MIB  # of all conversations
ID = re.compile(r"[\w-]{22}")


class SharedChats:
    """Writes ``ID.json`` in a folder, and reads it."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self.folder, self.max_bytes = folder, max_bytes

    def add(self, chat: WebChat) -> str:
        """Store a conversation's answered questions; return the id in its link. Raises OSError on a full disk."""
        chat_id = secrets.token_urlsafe(16)
        atomic_write(self.folder / f"{chat_id}.json", json.dumps(_to_json(chat)).encode())
        self._delete_oldest()
        return chat_id

    def find(self, chat_id: str) -> WebChat:
        """Return a conversation. Raises LlavaError where there is none of this id."""
        path = self.folder / f"{chat_id}.json"
        if not ID.fullmatch(chat_id) or not path.is_file():
            raise LlavaError("there is no conversation at this link; it may have been deleted to make space for others")
        try:
            return _from_json(json.loads(path.read_bytes()))
        except (ValueError, KeyError, TypeError) as error:
            raise LlavaError(f"the conversation at this link cannot be read ({type(error).__name__})") from error

    def _delete_oldest(self) -> None:
        files = sorted(self.folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        taken = 0
        for path in files:
            taken += path.stat().st_size
            if taken > self.max_bytes:
                path.unlink(missing_ok=True)


def _to_json(chat: WebChat) -> dict[str, Any]:
    turns = [
        {
            "question": turn.question,
            "images": [base64.b64encode(image.png).decode() for image in turn.images],
            "answer": turn.answer,
            "reply": turn.reply,
        }
        for turn in chat.turns
        if turn.answer
    ]
    answered = [{"question": one.question, "answer": one.answer, "reply": one.reply} for one in chat.answered]
    return {"model": chat.model, "conv_mode": chat.mode, "worker": chat.worker, "turns": turns, "answered": answered}


def _from_json(fields: dict[str, Any]) -> WebChat:
    turns = [
        Turn(
            turn["question"],
            tuple(UploadedImage(base64.b64decode(image)) for image in turn["images"]),
            turn["answer"],
            reply=turn["reply"],
        )
        for turn in fields["turns"]
    ]
    answered = [Answered(**one) for one in fields["answered"]]
    return WebChat(fields["model"], fields["conv_mode"], turns, answered=answered, worker=fields["worker"])
