"""Finds where quality falls off: the largest budget at which answers are clearly worse than at the largest of all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ada.eval.stats.accuracy import Accuracy, Difference
from ada.eval.stats.results import Row, largest_first, own_planners

MIN_FALL = 0.05  # in accuracy; a smaller fall is not worth a warning
MAX_P_VALUE = 0.01  # of McNemar's test, for a fall that is warned of
RULE = (
    f"at least {100 * MIN_FALL:.0f} points less than at the largest budget, on the same questions, with a p-value "
    f"below {MAX_P_VALUE:g} (McNemar, exact)"
)

Subset = tuple[str, str | None]
"""Some of a sweep's questions: a set's name, and a kind of its questions, or None for all."""


@dataclass(frozen=True)
class FallOff:
    """A fall in accuracy from ``before`` to ``after`` on a ``subset`` of the questions, which is called ``title``.

    ``row`` is the first one, from the largest budget down, that has fallen.
    """

    row: Row
    subset: Subset
    title: str
    before: Accuracy
    after: Accuracy
    change: Difference

    @property
    def figures(self) -> str:
        """The questions' title, and the accuracies before and after."""
        return (
            f"{self.title}: {100 * self.before.share:.1f} % to {100 * self.after.share:.1f} % "
            f"({100 * self.change.share:+.1f} ± {100 * self.change.reach:.1f})"
        )

    @property
    def sentence(self) -> str:
        """One line for the terminal."""
        return f"{self.row.name}, from budget {self.row.run.budget_text} down, {self.figures}"


def has_fallen(change: Difference) -> bool:
    """Return whether a change is a fall to be warned of."""
    return change.share <= -MIN_FALL and change.p_value < MAX_P_VALUE


def falls(rows: Iterable[Row]) -> list[FallOff]:
    """Find all falls of every model under its first planner: test questions, their kinds, benchmarks.

    The largest budgets come first, and the deepest falls first among them.
    """
    found = [fall for group in own_planners(rows) for fall in _falls(group)]
    return sorted(found, key=lambda fall: (fall.row.family, -fall.row.run.budget.fraction, fall.change.share))


def change_of(row: Row, largest: Row, subset: Subset) -> Difference:
    """Compare a row with the largest budget's, on a subset of the questions."""
    name, kind = subset
    return Difference.of(row.parts[name].right_of(kind), largest.parts[name].right_of(kind))


def _falls(group: Sequence[Row]) -> list[FallOff]:
    largest, *smaller = largest_first(group)
    found = []
    for subset, title in _subsets(largest).items():
        for row in smaller:
            change = change_of(row, largest, subset)
            if has_fallen(change):
                found.append(FallOff(row, subset, title, _accuracy(largest, subset), _accuracy(row, subset), change))
                break
    return found


def _subsets(row: Row) -> dict[Subset, str]:
    """Return every subset with its title: all test questions, each kind of them, each benchmark."""
    main = row.main.questions
    titles: dict[Subset, str] = {(main.name, None): main.title}
    titles |= {(main.name, kind): kind for kind in main.kinds}
    return titles | {(name, None): part.questions.title for name, part in row.parts.items() if part is not row.main}


def _accuracy(row: Row, subset: Subset) -> Accuracy:
    name, kind = subset
    return row.parts[name].accuracy_of(kind)
