"""Bounds the tokens of a conversation without tokenizing all of it: by its characters, then by its words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llava.conversation import Conversation
from llava.protocols import Tokenizer

MIN_MARKS = 10  # tokens around a message, at least: training words some templates otherwise than their prompts
NEW_LINE = 3  # tokens of a line's end, and of the word after it, which then begins without a space
MARGIN = 1.1  # for tokenizers that count a word in a sentence otherwise than alone
MAX_WORDS = 1_000_000  # that are remembered


class TokenEstimate:
    """Upper bounds of token counts in one template, for tokenizers that count words one by one, or nearly so."""

    def __init__(self, tokenizer: Tokenizer, template: Conversation) -> None:
        self.tokenizer = tokenizer
        self._begin = len(tokenizer("").input_ids)
        self._counts: dict[str, int] = {}
        one, two = (self._around(template, rounds) for rounds in (1, 2))
        self._marks = max(MIN_MARKS, math.ceil((two - one) / 2) + 2)  # tokens around a message
        self._system = one + MIN_MARKS

    def fits(self, texts: Sequence[str], limit: int) -> bool:
        """Return whether a conversation of the messages ``texts`` surely has no more than ``limit`` tokens."""
        left = limit - self._system - self._marks * len(texts)
        if all(text.isascii() for text in texts) and sum(map(len, texts)) <= left:
            return True  # an ASCII character is at most a token
        return MARGIN * sum(map(self._tokens, texts)) <= left

    def _around(self, template: Conversation, rounds: int) -> int:
        conversation = template.copy()
        conversation.messages = [[role, "a"] for role in template.roles[:2] * rounds]
        return len(self.tokenizer(conversation.get_prompt()).input_ids)

    def _tokens(self, text: str) -> int:
        words = text.split()
        spaces = len(text) - sum(map(len, words)) - max(0, len(words) - 1)
        return sum(map(self._count, words)) + spaces + NEW_LINE * text.count("\n")

    def _count(self, word: str) -> int:
        count = self._counts.get(word)
        if count is None:
            count = max(1, len(self.tokenizer(word).input_ids) - self._begin)
            if len(self._counts) < MAX_WORDS:
                self._counts[word] = count
        return count
