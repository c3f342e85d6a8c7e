"""A latency budget as the user writes it, and what became of it."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from llava.errors import OptionError

_RANGE = "a fraction in (0, 1] such as 0.5, or a percentage such as 50%"
_TIME = re.compile(r"^([+-]?[0-9.]+)\s*(ms|s)$")


@dataclass(frozen=True)
class LatencyBudget:
    """The fraction of the language model's full prefill compute that an answer may use, in (0, 1]."""

    fraction: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.fraction) and 0 < self.fraction <= 1):
            raise OptionError(f"--latency-budget is {self.fraction:g}; expected {_RANGE}")

    @classmethod
    def parse(cls, value: Any) -> LatencyBudget:
        """Read a number, a string as on the command line, or a budget. Raises ``OptionError`` with value and range."""
        if isinstance(value, LatencyBudget):
            return value
        if isinstance(value, bool) or not isinstance(value, (numbers.Real, str)):
            raise OptionError(f"--latency-budget is {value!r}; expected {_RANGE}")
        if not isinstance(value, str):
            return cls(float(value))  # NumPy's numbers too
        text = value.strip()
        if _TIME.match(text):
            raise OptionError(f"--latency-budget is {value!r}, a time; what is wanted here is {_RANGE}")
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


@dataclass(frozen=True)
class TimeBudget:
    """Milliseconds to the first token on this device, vision tower included, by the device's calibration."""

    milliseconds: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.milliseconds) and self.milliseconds > 0):
            raise OptionError(
                f"--latency-budget is {self.milliseconds:g}ms; expected a time above 0 such as 850ms or 1.2s"
            )

    def __str__(self) -> str:
        return f"{self.milliseconds:g}ms"


def read_budget(value: Any) -> LatencyBudget | TimeBudget:
    """A share or a time, ``850ms`` or ``1.2s``. Raises ``OptionError`` with the value and what was expected."""
    if isinstance(value, TimeBudget):
        return value
    found = _TIME.match(value.strip()) if isinstance(value, str) else None
    if found is None:
        try:
            return LatencyBudget.parse(value)
        except OptionError as error:
            raise OptionError(f"{error}, or a time such as 850ms or 1.2s") from None
    try:
        return TimeBudget(float(found[1]) * (1000 if found[2] == "s" else 1))
    except ValueError:
        raise OptionError(f"--latency-budget is {value!r}; expected a time such as 850ms or 1.2s") from None


def budgets_of_rows(budgets: Any, rows: int) -> list[LatencyBudget | TimeBudget | None]:
    """One budget, none, or one of either per row (a list or a tensor) -> one per row. Raises ``OptionError``."""
    if hasattr(budgets, "tolist"):  # a tensor or an array
        budgets = budgets.tolist()
    one = isinstance(budgets, str) or not isinstance(budgets, Iterable)
    each = [budgets] * rows if one else list(budgets)
    if len(each) != rows:
        raise OptionError(f"{len(each)} latency budgets for a batch of {rows}; expected one, or one per row")
    return [None if budget is None else read_budget(budget) for budget in each]
