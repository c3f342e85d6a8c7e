"""Says which of a tokenizer's tokens end a sentence, so that an answer whose time runs out ends with one."""

from __future__ import annotations

import functools
from typing import Any

from llava.protocols import Tokenizer

MARKS = (".", "!", "?", ".\n", "!\n", "?\n", "\n")


@functools.lru_cache(maxsize=8)
def sentence_ends(tokenizer: Any) -> frozenset[int]:
    """Return the ids of the tokens whose text ends a sentence, or a line."""
    return frozenset(_ids(tokenizer))


def _ids(tokenizer: Tokenizer) -> list[int]:
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return [token for token, text in enumerate(texts) if text.rstrip(" ").endswith(MARKS)]
