"""Parses a latency budget, a fraction or a time, where it enters: flag, request field or Python argument."""

from __future__ import annotations

import argparse
import math
import numbers
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from llava.errors import OptionError

_RANGE = "a fraction in (0, 1] such as 0.5, or a percentage such as 50%"
_TIME = re.compile(r"^([+-]?[0-9.]+)\s*(ms|s)$")


@dataclass(frozen=True)
class LatencyBudget:
    """The fraction of the language model's full prefill compute that an answer may use, in (0, 1]."""

    fraction: float
    text: str | None = field(default=None, compare=False, repr=False)  # as the user wrote it

    def __post_init__(self) -> None:
        if not (math.isfinite(self.fraction) and 0 < self.fraction <= 1):
            raise OptionError(f"--latency-budget is {self.fraction:g}; expected {_RANGE}")

    @classmethod
    def parse(cls, value: object) -> LatencyBudget:
        """Read a number, a string as on the command line, or a budget. Raises OptionError with value and range."""
        if isinstance(value, LatencyBudget):
            return value
        if isinstance(value, bool) or not isinstance(value, (numbers.Real, str)):
            raise OptionError(f"--latency-budget is {value!r}; expected {_RANGE}")
        if not isinstance(value, str):
            return cls(float(value))  # NumPy's numbers too
        text = value.strip()
        if _TIME.match(text):
            raise OptionError(f"--latency-budget is {value!r}, a time; expected {_RANGE}")
        number, scale = (text[:-1], 100.0) if text.endswith("%") else (text, 1.0)
        try:
            fraction = float(number) / scale
        except ValueError:
            raise OptionError(f"--latency-budget is {value!r}; expected {_RANGE}") from None
        if not (math.isfinite(fraction) and 0 < fraction <= 1):
            raise OptionError(f"--latency-budget is {value!r}; expected {_RANGE}")
        return cls(fraction, text)

    def __str__(self) -> str:
        return self.text or repr(self.fraction)


@dataclass(frozen=True)
class TimeBudget:
    """Milliseconds to the first token on this device, vision tower included, by the device's calibration."""

    milliseconds: float
    text: str | None = field(default=None, compare=False, repr=False)  # as the user wrote it

    def __post_init__(self) -> None:
        if not (math.isfinite(self.milliseconds) and self.milliseconds > 0):
            raise OptionError(
                f"--latency-budget is {self.milliseconds:g}ms; expected a time above 0 such as 850ms or 1.2s"
            )

    def less(self, milliseconds: float) -> TimeBudget:
        """Return what is left after a wait of ``milliseconds``; at least 1 ms."""
        return TimeBudget(max(1.0, self.milliseconds - milliseconds))

    def __str__(self) -> str:
        return self.text or f"{self.milliseconds:g}ms"


Budget = LatencyBudget | TimeBudget
BudgetLike = LatencyBudget | TimeBudget | float | int | str
"""What ``read_budget`` reads."""


def read_budget(value: object) -> Budget:
    """Read a fraction or a time, ``850ms`` or ``1.2s``; a budget is returned as it is.

    Raises OptionError with the value and what was expected.
    """
    if isinstance(value, TimeBudget):
        return value
    found = _TIME.match(value.strip()) if isinstance(value, str) else None
    if found is None:
        try:
            return LatencyBudget.parse(value)
        except OptionError as error:
            raise OptionError(f"{error}, or a time such as 850ms or 1.2s") from None
    try:
        return TimeBudget(float(found[1]) * (1000 if found[2] == "s" else 1), found[0])
    except ValueError:
        raise OptionError(f"--latency-budget is {value!r}; expected a time such as 850ms or 1.2s") from None


def budget_flag(text: str) -> Budget:
    """Read the flag ``--latency-budget``, as argparse's ``type``."""
    try:
        return read_budget(text)
    except OptionError as error:
        # argparse names the flag itself
        raise argparse.ArgumentTypeError(str(error).removeprefix("--latency-budget is ")) from None


def budgets_of_rows(budgets: object, rows: int) -> Sequence[Budget | None]:
    """Return one budget for each of ``rows`` rows, from one for all, none, or one of either per row.

    A list, a tensor or an array holds one per row. Raises OptionError where their number is another.
    """
    if hasattr(budgets, "tolist"):  # a tensor or an array
        budgets = budgets.tolist()
    one = isinstance(budgets, str) or not isinstance(budgets, Iterable)
    each = [budgets] * rows if one else list(budgets)  # type: ignore[call-overload]
    if len(each) != rows:
        raise OptionError(f"{len(each)} latency budgets for a batch of {rows}; expected one, or one per row")
    return [None if budget is None else read_budget(budget) for budget in each]
