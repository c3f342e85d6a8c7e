"""Parses how many of an image's tokens the decoder reads, where it enters: flag, request field or Python argument."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from llava.errors import OptionError

EXPECTED = (
    "all, auto, a number of tokens such as 144, a percentage such as 25%, or two of these, as 50%/25%: those that "
    "enter the decoder, and of all, those that its later layers read; an amount of all images of a prompt has the word "
    "shared after it, as 144 shared"
)
SHARED = " shared"


@dataclass(frozen=True)
class Amount:
    """How many of an image's tokens stay: a number, or a share in (0, 1]; by default all.

    shared: it is an amount of the tokens of all images of a prompt.
    """

    number: int | None = None
    share: float = 1.0
    shared: bool = False

    @property
    def is_all(self) -> bool:
        """Whether all tokens stay, however many there are."""
        return self.number is None and self.share == 1

    def of(self, tokens: int) -> int:
        """Return how many of ``tokens`` stay, at least one."""
        if self.number is not None:
            return min(self.number, tokens)
        return min(tokens, max(1, math.floor(self.share * tokens + 1e-9)))

    def of_each(self, tokens: Sequence[int]) -> list[int]:
        """Return how many of each image's ``tokens`` stay; shared amounts are shared out by their numbers."""
        return shared_counts(self.of(sum(tokens)), tokens) if self.shared else [self.of(own) for own in tokens]

    def __str__(self) -> str:
        shared = " shared" if self.shared else ""
        if self.number is not None:
            return f"{self.number}{shared}"
        return "all" if self.is_all else f"{100 * self.share:g}%{shared}"


def shared_counts(total: int, tokens: Sequence[int]) -> list[int]:
    """Share ``total`` out over images of so many ``tokens``, in proportion; each gets at least one."""
    counts = [min(1, own) for own in tokens]
    for _ in range(min(total, sum(tokens)) - sum(counts)):
        shares = [(count + 0.5) / own if count < own else math.inf for count, own in zip(counts, tokens, strict=True)]
        counts[shares.index(min(shares))] += 1  # Sainte-Lague's rule
    return counts


ALL = Amount()


@dataclass(frozen=True)
class ImageTokens:
    """How many tokens of each image enter the decoder (``front``), and how many its later layers read (``late``).

    Both are of all tokens of an image; ``late`` is None where all that enter stay. auto: what the budget pays for.
    """

    front: Amount = ALL
    late: Amount | None = None
    auto: bool = False

    @classmethod
    def parse(cls, value: object) -> ImageTokens:
        """Read a number, or a text as on the command line. Raises OptionError with the value and what was expected."""
        if isinstance(value, ImageTokens):
            return value
        if isinstance(value, str) and value.strip() == "auto":
            return AUTO
        front, slash, late = value.partition("/") if isinstance(value, str) else (value, "", "")
        read = [_amount(part) for part in ((front, late) if slash else (front,))]
        amounts = [amount for amount in read if amount is not None]
        if len(amounts) < len(read):
            raise OptionError(f"--image-tokens is {value!r}; expected {EXPECTED}")
        if len(amounts) == 2 and _is_more(amounts[1], amounts[0]):
            raise OptionError(
                f"--image-tokens is {value!r}, but later layers cannot read more tokens than enter the decoder; "
                f"expected the larger amount first, as 50%/25%, or one amount, as {amounts[0]}"
            )
        return cls(amounts[0], amounts[1] if len(amounts) == 2 else None)

    def __str__(self) -> str:
        return "auto" if self.auto else "/".join(str(part) for part in (self.front, self.late) if part is not None)


AUTO = ImageTokens(auto=True)
ALL_IMAGE_TOKENS = ImageTokens()
ImageTokensLike = ImageTokens | int | str
"""What ``ImageTokens.parse`` reads."""


def _is_more(late: Amount, front: Amount) -> bool:
    """Return whether ``late`` is more than ``front`` for any image; of all that enter, ``all`` stays."""
    if late.is_all:
        return False
    if late.number is not None and front.number is not None:
        return late.number > front.number and (front.shared or not late.shared)  # shared: of several images together
    return late.number is None and front.number is None and late.share > front.share


def _amount(value: object) -> Amount | None:
    """Read one amount; None for what is none."""
    if isinstance(value, str) and value.strip().endswith(SHARED):
        amount = _amount(value.strip().removesuffix(SHARED))
        if amount is None or amount.shared:
            return None
        return amount if amount.is_all else replace(amount, shared=True)
    if isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= 1:
        return Amount(number=int(value))
    text = value.strip() if isinstance(value, str) else ""
    if text == "all":
        return ALL
    if re.fullmatch("[0-9]{1,18}", text) and int(text) >= 1:  # int() raises on thousands of digits
        return Amount(number=int(text))
    if text.endswith("%") and 0 < (share := _percentage(text[:-1])) <= 1:
        return Amount(share=share)
    return None


def _percentage(text: str) -> float:
    try:
        share = float(text) / 100
    except ValueError:
        return math.nan
    return share


def image_tokens_of_rows(value: object, rows: int) -> Sequence[ImageTokens]:
    """Return one amount for each of ``rows`` rows, from one for all, none (all tokens), or a list of one per row.

    Raises OptionError where their number is another.
    """
    one = isinstance(value, str) or not isinstance(value, Iterable)
    each = [value] * rows if one else list(value)  # type: ignore[call-overload]
    if len(each) != rows:
        raise OptionError(f"{len(each)} values of image_tokens for a batch of {rows}; expected one, or one per row")
    return [ALL_IMAGE_TOKENS if amount is None else ImageTokens.parse(amount) for amount in each]
