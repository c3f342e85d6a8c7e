"""Reads how many answers may differ from the full model's: a share, as a number or a percentage."""

from __future__ import annotations

import math

from llava.errors import OptionError


def read_disagreement(value: object) -> float:
    """Read a share such as 0.02 or "2%". Raises OptionError for what is none in (0, 1)."""
    text = str(value).strip()
    number, scale = (text[:-1], 100.0) if text.endswith("%") else (text, 1.0)
    try:
        share = float(number) / scale
    except ValueError:
        share = math.nan
    if not 0 < share < 1:
        raise OptionError(f"--max-disagreement is {value!r}; expected a share in (0, 1) such as 2% or 0.02")
    return share
