"""Masks the labels of a ChatML conversation: each answer and the ``<|im_end|>`` after it are trained on.

Upstream counts rounds one by one. With most tokenizers their sum is not the conversation's length, and upstream then
trains on nothing, with a printed warning. Where the sum is right, upstream's labels are kept, so that both train alike:
they begin one token early in the first round, and leave out its end. Otherwise the tokens are counted in context.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from llava.constants import IGNORE_INDEX
from llava.errors import DataError

Count = Callable[[str], int]
Turn = tuple[bool, str]
"""Whether the turn is the assistant's, and its text from the role to the end mark."""


def mask_answers(ids: torch.Tensor, system: str, turns: Sequence[Turn], role: str, count: Count) -> torch.Tensor:
    """Return the labels (T,), counted in context. role: the text before an answer. count: counts a text's tokens."""
    labels = torch.full_like(ids, IGNORE_INDEX)
    text = system
    for is_answer, turn in turns:
        if is_answer:
            answer = slice(count(text + role), count(text + turn))
            labels[answer] = ids[answer]
        text += turn
    return labels


def upstream_labels(
    ids: torch.Tensor, text: str, role: str, end: str, count: Count, limit: int, late: bool, real: int
) -> torch.Tensor | None:
    """Return the labels (T,) as upstream counts them; None where its sum is not the number of ``real`` tokens.

    limit: the model's maximum length in tokens; longer sums are not checked. late: whether rounds after the first
    count one token more, as tokenizers in sentencepiece's legacy mode need.
    """
    pieces = text.split(end)
    rounds = [end.join(pieces[:3])] + [end.join(pieces[at : at + 2]) for at in range(3, len(pieces), 2)]
    labels, cursor = ids.clone(), 0
    for index, turn in enumerate(rounds):
        asked, *answers = turn.split(end + role)
        if len(answers) != 1:
            break
        more = int(late and index > 0)
        labels[cursor : cursor + count(asked + end + role) - 1 + more] = IGNORE_INDEX
        cursor += count(turn) + more
    labels[cursor:] = IGNORE_INDEX
    return labels if cursor >= limit or cursor == real else None


def check_turns(turns: Sequence[Turn], role: str, end: str, sample: str) -> None:
    """Raise ``DataError``, naming the ``sample``, where an answer is empty or missing, or a text holds the end mark."""
    for number, (is_answer, turn) in enumerate(turns, 1):
        if turn.count(end) != 1 or not turn.endswith(end):
            raise DataError(f"sample {sample}: message {number} is empty, or holds {end!r}, which ends a message")
        if is_answer and not turn.removeprefix(role).removesuffix(end).strip():
            raise DataError(f"sample {sample}: message {number} is an empty answer, which cannot be trained on")
    if not turns or not turns[-1][0]:
        raise DataError(f"sample {sample}: the last question has no answer")
