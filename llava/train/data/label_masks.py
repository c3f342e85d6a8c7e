"""Which tokens of a conversation are learned: the assistant's answers and the token that ends each of them.

Lengths are counted in context (a later turn behind the end token in front of it), so that the masks are exact for
tokenizers of either sentencepiece mode and for byte-level ones. A conversation whose turns cannot be told apart
raises ``DataError``; nothing is trained on silently masked samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from llava.constants import IGNORE_INDEX
from llava.errors import DataError

Count = Callable[[str], int]
"""Text -> its number of tokens, a beginning-of-sequence token and image tags included."""


def mask_rounds(
    ids: torch.Tensor, text: str, count: Count, separator: str, end: str, limit: int, sample: str = "?"
) -> torch.Tensor:
    """Labels (T,) for templates whose rounds are "question separator answer end".

    separator: what stands between question and answer, its trailing space included; end: the text of the token that
    closes an answer; limit: tokens that the model takes; what lies behind them is cut off, and may be anything.

    Raises ``DataError``, naming the ``sample``, where a round has no answer or more than one, and where the rounds'
    lengths do not add up to that of the ids.
    """
    begin = count("")
    labels = ids.clone()
    labels[:begin] = IGNORE_INDEX
    cursor = begin
    for index, turn in enumerate(text.split(end)):
        if not turn:
            break
        question, *answers = turn.split(separator)
        if len(answers) != 1:
            if cursor >= limit:
                break
            raise DataError(
                f"sample {sample}: turn {index + 1} does not split into one question and one answer at "
                f"{separator!r}; an answer that is empty, or holds {separator!r} or {end!r}, and a question without "
                "an answer cannot be trained on"
            )
        before = end if index else ""
        skipped = count(before)
        asked = count(before + question + separator.rstrip()) - skipped
        labels[cursor : cursor + asked] = IGNORE_INDEX
        cursor += count(before + turn) - skipped + 1
    labels[cursor:] = IGNORE_INDEX
    if cursor != len(ids) and cursor < limit:
        raise DataError(
            f"sample {sample}: its turns make {cursor} tokens, the whole conversation {len(ids)}; does the tokenizer "
            f"know {end!r} as one token, and does it fit the conversation template?"
        )
    return labels


def mask_messages(
    ids: torch.Tensor, header_length: int, lengths: Sequence[int], from_human: Sequence[bool]
) -> torch.Tensor:
    """Labels (T,) for the "### Role: message" form: the header and all human messages but their signal are ignored.

    lengths: tokens of each message, counted alone.
    """
    labels = ids.clone()
    labels[:header_length] = IGNORE_INDEX
    cursor = header_length
    for length, human in zip(lengths, from_human, strict=True):
        if human:
            labels[cursor + 2 : cursor + length] = IGNORE_INDEX
        cursor += length
    return labels
