"""Incremental detokenizer: text of a growing answer, without half characters or the beginning of a stop text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import StoppingCriteria

from llava.protocols import Tokenizer
from llava.serve.engine.request import GenerationRequest

UNFINISHED = "\ufffd"  # what a tokenizer writes for a character whose bytes have not all come


def cut_at_stop(text: str, stops: Sequence[str], start: int = 0) -> tuple[str, bool]:
    """Return the text before the first stop text that ends after character ``start``, and whether there was one."""
    found = [at for stop in stops if (at := text.find(stop, max(0, start - len(stop) + 1))) >= 0]
    return (text[: min(found)], True) if found else (text, False)


def partial_stop_length(text: str, stops: Sequence[str]) -> int:
    """Return how many characters at the end of ``text`` may be the beginning of a stop text."""
    return max(
        (n for stop in stops for n in range(1, min(len(stop), len(text) + 1)) if text.endswith(stop[:n])), default=0
    )


def special_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[int]:
    """Return the ids of those texts that are one special token, which decoding leaves out: ``</s>``, ``<|im_end|>``."""
    ids = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    return [one[0] for one in ids if len(one) == 1 and not tokenizer.decode(one, skip_special_tokens=True)]


class IncrementalDetokenizer:
    """Decodes an answer token by token.

    Each new token decodes only a window of the last ones, with a few tokens before them, on which a tokenizer's spaces
    depend. ``stops`` end the text, and so do the tokens ``stop_ids``, once there are more than ``min_tokens`` tokens.
    Spaces before the first other character belong to no stop text: clients remove them.
    """

    def __init__(
        self, tokenizer: Tokenizer, stops: Sequence[str] = (), stop_ids: Sequence[int] = (), min_tokens: int = 0
    ) -> None:
        self.tokenizer = tokenizer
        self.stops, self.stop_ids, self.min_tokens = stops, stop_ids, min_tokens
        self.ids: list[int] = []
        self.stopped = False
        self._start = 0  # characters in which no stop text is looked for
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
        if len(self.ids) <= self.min_tokens:
            self._start = len(self._text)
        elif token_id in self.stop_ids:
            self.stopped = True
        text, found = self._cut(self._text)
        return text if found else text[: len(text) - partial_stop_length(text, self.stops)]

    def finish(self) -> str:
        """Return the complete answer, decoded at once, up to its stop text."""
        return self._cut(self._decode(0, len(self.ids)))[0]

    def _cut(self, text: str) -> tuple[str, bool]:
        """Cut ``text`` at a stop text; ``stopped`` says from then on that there was one."""
        blank = len(text) - len(text.lstrip())
        text, found = cut_at_stop(text, self.stops, max(self._start, blank))
        self.stopped = self.stopped or found
        return text, found

    def _decode(self, start: int, end: int) -> str:
        return self.tokenizer.decode(self.ids[start:end], skip_special_tokens=True)


class TokenWatcher(StoppingCriteria):  # type: ignore[misc]
    """A stopping criterion that passes each new token id of one sequence to ``on_token``; that says whether to stop."""

    def __init__(self, on_token: Callable[[int], bool]) -> None:
        self.on_token = on_token

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Return (1,) bool: whether the sequence input_ids (1, t) is complete."""
        stop = self.on_token(int(input_ids[0, -1]))
        return torch.full((1,), stop, device=input_ids.device)


def detokenizer_of(tokenizer: Tokenizer, generation: GenerationRequest) -> IncrementalDetokenizer:
    """Make the detokenizer of a request's answer, which ends as the request says."""
    sampling = generation.sampling
    stop_ids = [] if sampling.ignore_eos else special_ids(tokenizer, generation.stop)
    return IncrementalDetokenizer(tokenizer, generation.stop, stop_ids, sampling.min_tokens)
