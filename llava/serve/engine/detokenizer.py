"""Token ids one by one -> the text so far, without half characters and without what may become the stop text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from transformers.generation.streamers import BaseStreamer

UNFINISHED = "\ufffd"  # what a tokenizer writes for a character whose bytes are not all there


def cut_at_stop(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text in front of the first stop text, and whether there was one."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return (text[: min(places)], True) if places else (text, False)


def possible_stop(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of ``text`` that a stop text begins with."""
    return max(
        (n for stop in stops for n in range(1, min(len(stop), len(text) + 1)) if text.endswith(stop[:n])), default=0
    )


class TextStream:
    """Text of a growing answer.

    Only a window of the last tokens is decoded for each new one, together with a few in front of it, on which its
    spaces depend.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        self.tokenizer = tokenizer
        self.stops = stops
        self.ids: list[int] = []
        self.stopped = False
        self._whole = ""  # text of ids[:_read]
        self._front, self._read = 0, 0  # the window starts at _front; what is behind _read is not in _whole yet

    def add(self, token_id: int) -> str:
        """One more token; the text that may be shown."""
        self.ids.append(token_id)
        known = self._decoded(self._front, self._read)
        wider = self._decoded(self._front, len(self.ids))
        if len(wider) > len(known) and not wider.endswith(UNFINISHED):
            self._whole += wider[len(known) :]
            self._front, self._read = self._read, len(self.ids)
        text, found = cut_at_stop(self._whole, self.stops)
        self.stopped = self.stopped or found
        return text if found else text[: len(text) - possible_stop(text, self.stops)]

    def finished(self) -> str:
        """The whole answer, decoded at once, in front of its stop text."""
        text, found = cut_at_stop(self._decoded(0, len(self.ids)), self.stops)
        self.stopped = self.stopped or found
        return text

    def _decoded(self, start: int, end: int) -> str:
        return self.tokenizer.decode(self.ids[start:end], skip_special_tokens=True)


class TokenStreamer(BaseStreamer):
    """What ``generate`` hands its tokens to, one row's: calls ``on_token`` with each new id."""

    def __init__(self, on_token: Callable[[int], None]) -> None:
        self.on_token = on_token

    def put(self, value: Any) -> None:
        """The prompt, which is empty here as it goes in as embeddings; then one token at a time."""
        for token_id in value.flatten().tolist():
            self.on_token(token_id)

    def end(self) -> None:
        """Nothing is held back."""
