"""Parses which selectors choose image tokens: one before the decoder, one as a later layer is entered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ada.image_tokens.selectors import DEFAULT_SELECTOR, SELECTORS
from llava.errors import OptionError

LATE_SELECTORS = ("fastv", "learned")
SHRINK = "shrink"
"""The selector that needs a number before a budget is shared out; without one it leaves images as they are."""


@dataclass(frozen=True)
class SelectorNames:
    """The selector of the tokens that enter the decoder, and that of the tokens that later layers read.

    late_alone: a late one was named alone, so that an amount is meant for it.
    """

    front: str
    late: str
    late_alone: bool = False

    @classmethod
    def of(cls, value: object, model: Any) -> SelectorNames:
        """Read ``token_selector``: FRONT, LATE or FRONT/LATE, or None for the model's own.

        By default those that ``model`` was trained with; else salient and fastv. Raises OptionError for other names.
        """
        front = getattr(model.config, "token_selector", None) or DEFAULT_SELECTOR
        late = "fastv" if getattr(model, "token_scorer", None) is None else "learned"
        if value is None:
            return cls(front, late)
        names = check_selector_name(value).split("/")
        if len(names) == 2:
            return cls(names[0], names[1])
        return cls(names[0], late) if names[0] in SELECTORS else cls(front, names[0], late_alone=True)

    @property
    def shrinks(self) -> bool:
        """Whether an amount for the front makes images smaller before they are encoded."""
        return self.front == SHRINK and not self.late_alone


def check_selector_name(value: object) -> str:
    """Return FRONT, LATE or FRONT/LATE without space around it. Raises OptionError for other names."""
    text = value.strip() if isinstance(value, str) else ""
    front, slash, late = text.partition("/")
    known = (front in SELECTORS and late in LATE_SELECTORS) if slash else text in (*SELECTORS, *LATE_SELECTORS)
    if not known:
        raise OptionError(
            f"the token selector is {value!r}; expected one of {', '.join((*SELECTORS, *LATE_SELECTORS))}, or two as "
            f"{DEFAULT_SELECTOR}/{LATE_SELECTORS[-1]}"
        )
    return text
