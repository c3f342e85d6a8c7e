"""Masks the labels of a conversation: only the answers, and the token that ends each, are trained on.

Tokens are counted in context (a later turn after the end token before it), so that the masks are exact for tokenizers
of either sentencepiece mode and for byte-level ones. A conversation that does not split into turns raises
``DataError``; no sample is masked silently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from llava.constants import IGNORE_INDEX
from llava.errors import DataError

Count = Callable[[str], int]
"""Counts the tokens of a text, including a beginning-of-sequence token and image tags."""


def mask_rounds(
    ids: torch.Tensor, text: str, count: Count, separator: str, end: str, limit: int, sample: str = "?"
) -> torch.Tensor:
    """Return the labels (T,) for templates whose rounds are "question separator answer end".

    separator: the text between question and answer, with its trailing space. end: the text of the token that ends an
    answer. limit: the model's maximum length in tokens; what follows is cut off, and not checked.

    Raises ``DataError``, naming the ``sample``, where a round has no answer or more than one, and where the lengths of
    the rounds do not add up to that of the ids.
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
            f"sample {sample}: its turns make {cursor} tokens, but the conversation {len(ids)}; does the tokenizer "
            f"know {end!r} as one token, and does it fit the conversation template?"
        )
    return labels


def mask_messages(
    ids: torch.Tensor, header_length: int, lengths: Sequence[int], from_human: Sequence[bool]
) -> torch.Tensor:
    """Return the labels (T,) for the "### Role: message" form, without the header and the human messages.

    Of a human message the first two tokens ("### ") stay. lengths: tokens of each message, counted on its own.
    """
    labels = ids.clone()
    labels[:header_length] = IGNORE_INDEX
    cursor = header_length
    for length, human in zip(lengths, from_human, strict=True):
        if human:
            labels[cursor + 2 : cursor + length] = IGNORE_INDEX
        cursor += length
    return labels
