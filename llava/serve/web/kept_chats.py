"""Keeps conversations in memory for pages that are loaded anew, within a limit: those that were kept last."""

from __future__ import annotations

import threading
from collections import OrderedDict

from llava.files.images import MIB
from llava.serve.web.conversation_state import WebChat

MAX_BYTES = 256 * MIB  # of all conversations' images
MAX_CHATS = 1000


class KeptChats:
    """Conversations by their ids, which only their pages know. Thread-safe."""

    def __init__(self, max_bytes: int = MAX_BYTES, max_chats: int = MAX_CHATS) -> None:
        self.max_bytes, self.max_chats = max_bytes, max_chats
        self._chats: OrderedDict[str, WebChat] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def keep(self, chat: WebChat) -> None:
        """Keep a conversation as it is now; one without turns is forgotten."""
        kept = chat.copy()
        with self._lock:
            self._forget(chat.id)
            if not kept.turns:
                return
            self._chats[chat.id] = kept
            self._bytes += size_of(kept)
            while self._chats and (self._bytes > self.max_bytes or len(self._chats) > self.max_chats):
                self._forget(next(iter(self._chats)))

    def find(self, chat_id: str) -> WebChat | None:
        """Return a copy of a conversation, under another id; None where it is not kept."""
        with self._lock:
            found = self._chats.get(chat_id)
            return None if found is None else found.copy()

    def _forget(self, chat_id: str) -> None:
        forgotten = self._chats.pop(chat_id, None)
        self._bytes -= 0 if forgotten is None else size_of(forgotten)


def size_of(chat: WebChat) -> int:
    """Return the bytes of a conversation's images."""
    return sum(map(len, chat.images))
