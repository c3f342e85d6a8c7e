"""Incremental detokenizer: text of a growing answer, without half characters or the beginning of a stop text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from transformers.generation.streamers import BaseStreamer

from llava.protocols import Tokenizer

UNFINISHED = "\ufffd"  # what a tokenizer writes for a character whose bytes have not all come


def cut_at_stop(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """Return the text before the first stop text, and whether there was one."""
    found = [position for stop in stops if (position := text.find(stop)) >= 0]
    return (text[: min(found)], True) if found else (text, False)


def partial_stop_length(text: str, stops: Sequence[str]) -> int:
    """Return how many characters at the end of ``text`` may be the beginning of a stop text."""
    return max(
        (n for stop in stops for n in range(1, min(len(stop), len(text) + 1)) if text.endswith(stop[:n])), default=0
    )


class IncrementalDetokenizer:
    """Decodes an answer token by token.

    Each new token decodes only a window of the last ones, with a few tokens before them, on which a tokenizer's spaces
    depend.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self.tokenizer = tokenizer
        self.stops = stops
        self.ids: list[int] = []
        self.stopped = False
        self._text = ""  # text of ids[:_decoded]
        self._window, self._decoded = 0, 0  # the window begins at token _window

    def add(self, token_id: int) -> str:
        """Append a token; return the text that may be shown."""
        self.ids.append(token_id)
        known = self._decode(self._window, self._decoded)
        extended = self._decode(self._window, len(self.ids))
        if len(extended) > len(known) and not extended.endswith(UNFINISHED):
            self._text += extended[len(known) :]
            self._window, self._decoded = self._decoded, len(self.ids)
        text, found = cut_at_stop(self._text, self.stops)
        self.stopped = self.stopped or found
        return text if found else text[: len(text) - partial_stop_length(text, self.stops)]

    def finish(self) -> str:
        """Return the complete answer, decoded at once, up to its stop text."""
        text, found = cut_at_stop(self._decode(0, len(self.ids)), self.stops)
        self.stopped = self.stopped or found
        return text

    def _decode(self, start: int, end: int) -> str:
        return self.tokenizer.decode(self.ids[start:end], skip_special_tokens=True)


class TokenStreamer(BaseStreamer):  # type: ignore[misc]
    """A streamer for ``generate`` that calls ``on_token`` with each new token id of one sequence."""

    def __init__(self, on_token: Callable[[int], None]) -> None:
        self.on_token = on_token

    def put(self, value: torch.Tensor) -> None:
        """Pass on new token ids. The prompt comes first, and is empty here, as it enters as embeddings."""
        for token_id in value.flatten().tolist():
            self.on_token(token_id)

    def end(self) -> None:
        """Do nothing: no token is held back."""
