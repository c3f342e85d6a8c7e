"""Parses a latency budget, a fraction or times, where it enters: flag, request field or Python argument."""

from __future__ import annotations

import argparse
import math
import numbers
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from llava.errors import OptionError

_RANGE = "a fraction in (0, 1] such as 0.5, or a percentage such as 50%"
_CLAUSES_LIKE = "or clauses such as ttft=300ms,tpot=20ms,total=2s"
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
            return cls(_as_written(value))
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
    """What an answer may take on this device, by its calibration, in milliseconds; what is None is not promised.

    milliseconds: from the question to the first token, vision tower included; token_ms: each token after it, on the
    answer's average; total_ms: from the question to the end of the answer. later_tokens: that the answer is planned to
    have after its first.
    """

    milliseconds: float | None = None
    text: str | None = field(default=None, compare=False, repr=False)  # as the user wrote it
    token_ms: float | None = None
    total_ms: float | None = None
    later_tokens: int = field(default=0, compare=False, repr=False)

    def __post_init__(self) -> None:
        given = [value for _, value in self.clauses()]
        if not given:
            raise OptionError(f"--latency-budget has no clause; expected a time such as 850ms, {_CLAUSES_LIKE}")
        if not all(math.isfinite(value) and value > 0 for value in given):
            raise OptionError(f"--latency-budget is {self}; expected times above 0 such as 850ms or 1.2s")

    @classmethod
    def of(cls, clauses: Mapping[str, float], text: str | None = None) -> TimeBudget:
        """Make a budget of milliseconds by clause."""
        first, later, total = map(clauses.get, CLAUSES)
        return cls(first, text, later, total)

    def clauses(self) -> list[tuple[str, float]]:
        """Return the clauses that are given, by name: ``ttft``, ``tpot``, ``total``."""
        named = zip(CLAUSES, (self.milliseconds, self.token_ms, self.total_ms), strict=True)
        return [(name, value) for name, value in named if value is not None]

    def less(self, milliseconds: float) -> TimeBudget:
        """Return what is left after a wait of ``milliseconds``; at least 1 ms."""
        first, total = (None if x is None else max(1.0, x - milliseconds) for x in (self.milliseconds, self.total_ms))
        return replace(self, milliseconds=first, total_ms=total, text=None)

    @property
    def paces(self) -> bool:
        """Whether tokens after the first are promised, too."""
        return self.token_ms is not None or self.total_ms is not None

    def __str__(self) -> str:
        if self.text:
            return self.text
        parts = self.clauses()
        if [name for name, _ in parts] == ["ttft"]:
            return f"{self.milliseconds:g}ms"
        return ",".join(f"{name}={value:g}ms" for name, value in parts)


CLAUSES = ("ttft", "tpot", "total")
"""To the first token, for each token after it, to the end of the answer: as servers' metrics name them."""

Budget = LatencyBudget | TimeBudget
BudgetLike = LatencyBudget | TimeBudget | Mapping[str, object] | float | int | str
"""What ``read_budget`` reads."""


def read_budget(value: object) -> Budget:
    """Read a fraction, a time to first token (``850ms``, ``1.2s``), or clauses (``ttft=300ms,tpot=20ms,total=2s``).

    Clauses may be a mapping, too, whose values are such texts or milliseconds; a budget is returned as it is. Raises
    OptionError with the value and what was expected.
    """
    if isinstance(value, TimeBudget):
        return value
    if isinstance(value, Mapping):
        return _read_clauses(value, value, None)
    if isinstance(value, str) and "=" in value:
        pairs = [part.partition("=") for part in value.split(",")]
        named = {name.strip(): text.strip() for name, _, text in pairs}
        if len(named) != len(pairs):
            raise OptionError(f"--latency-budget is {value!r}; expected each clause once, {_CLAUSES_LIKE}")
        return _read_clauses(named, value, value.strip())
    if not (isinstance(value, str) and _TIME.match(value.strip())):
        try:
            return LatencyBudget.parse(value)
        except OptionError as error:
            raise OptionError(f"{error}, or a time such as 850ms or 1.2s, {_CLAUSES_LIKE}") from None
    return TimeBudget(_milliseconds(value, value), text=value.strip())


def _read_clauses(named: Mapping[str, object], given: object, text: str | None) -> TimeBudget:
    times: dict[str, float] = {}
    for name, value in named.items():
        clause = str(name).removesuffix("_ms")
        if clause not in CLAUSES or clause in times:
            raise OptionError(f"--latency-budget is {given!r}; expected {', '.join(CLAUSES)}, {_CLAUSES_LIKE}")
        times[clause] = _milliseconds(value, given)
    return TimeBudget.of(times, text)


def _milliseconds(value: object, given: object) -> float:
    """Read a time: a text with its unit, or a number of milliseconds."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        milliseconds = _as_written(value)
    else:
        found = _TIME.match(value.strip()) if isinstance(value, str) else None
        try:
            milliseconds = float(found[1]) * (1000 if found[2] == "s" else 1) if found else math.nan
        except ValueError:
            milliseconds = math.nan
    if not (math.isfinite(milliseconds) and milliseconds > 0):
        raise OptionError(f"--latency-budget is {given!r}; expected times above 0 such as 850ms or 1.2s")
    return milliseconds


def _as_written(value: Any) -> float:
    """Return a number, NumPy's too, as Python's; of single precision the decimal that was meant: 0.7, not 0.699999988.

    That grants a unit fewer. What 16 bits hold of 0.7 is so far from it that it may mean another budget.
    """
    return _decimal(value) if _is_single(value) else float(value)


def _is_single(value: Any) -> bool:
    return str(getattr(value, "dtype", None)).endswith("float32")


def _decimal(value: float) -> float:
    return float(str(np.float32(value)))


def _values(budgets: Any) -> Any:
    """Return a tensor's or an array's budgets, or NumPy's number, as Python's numbers, as ``_as_written`` does."""
    values = budgets.tolist()
    if not _is_single(budgets) or budgets.ndim > 1:
        return values
    return [*map(_decimal, values)] if budgets.ndim else _decimal(values)


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
    if hasattr(budgets, "tolist"):  # a tensor, an array or NumPy's number
        budgets = _values(budgets)
    one = isinstance(budgets, str | Mapping) or not isinstance(budgets, Iterable)
    each = [budgets] * rows if one else list(budgets)  # type: ignore[call-overload]
    if len(each) != rows:
        raise OptionError(f"{len(each)} latency budgets for a batch of {rows}; expected one, or one per row")
    return [None if budget is None else read_budget(budget) for budget in each]
