"""Parses which selectors choose image tokens: one before the decoder, one as a later layer is entered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ada.image_tokens.late_selectors import LATE_SELECTORS
from ada.image_tokens.selectors import DEFAULT_SELECTOR, SELECTORS
from llava.errors import OptionError


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
        names = value.strip().split("/") if isinstance(value, str) else []
        if len(names) == 1 and names[0] in SELECTORS:
            return cls(names[0], late)
        if len(names) == 1 and names[0] in LATE_SELECTORS:
            return cls(front, names[0], late_alone=True)
        if len(names) == 2 and names[0] in SELECTORS and names[1] in LATE_SELECTORS:
            return cls(names[0], names[1])
        raise OptionError(
            f"the token selector is {value!r}; expected one of {', '.join((*SELECTORS, *LATE_SELECTORS))}, or two as "
            f"{DEFAULT_SELECTOR}/{LATE_SELECTORS[-1]}"
        )
