"""A latency budget as the user writes it, and what became of it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from llava.errors import OptionError

_RANGE = "a fraction in (0, 1] such as 0.5, or a percentage such as 50%"
_MILLISECONDS = re.compile(r"^[+-]?[0-9.]+\s*(ms|s)$")


@dataclass(frozen=True)
class LatencyBudget:
    """The fraction of the language model's full prefill compute that an answer may use, in (0, 1]."""

    fraction: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.fraction) and 0 < self.fraction <= 1):
            raise OptionError(f"--latency-budget is {self.fraction:g}; expected {_RANGE}")

    @classmethod
    def parse(cls, value: LatencyBudget | float | int | str) -> LatencyBudget:
        """Read a budget from Python or the command line. Raises ``OptionError`` with the value and the range."""
        if isinstance(value, LatencyBudget):
            return value
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise OptionError(f"--latency-budget is {value!r}; expected {_RANGE}")
        if not isinstance(value, str):
            return cls(float(value))
        text = value.strip()
        if _MILLISECONDS.match(text):
            raise OptionError(
                f"--latency-budget is {value!r}: budgets in time need a calibration of this device, which this "
                f"version does not have; expected {_RANGE}"
            )
        number, scale = (text[:-1], 100.0) if text.endswith("%") else (text, 1.0)
        try:
            fraction = float(number) / scale
        except ValueError:
            raise OptionError(f"--latency-budget is {value!r}; expected {_RANGE}") from None
        if not (math.isfinite(fraction) and 0 < fraction <= 1):
            raise OptionError(f"--latency-budget is {value!r}; expected {_RANGE}")
        return cls(fraction)

    def __str__(self) -> str:
        return f"{self.fraction:g}"
