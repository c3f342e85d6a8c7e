"""Where quality falls off: the largest budget at which answers are clearly worse than at the largest one of all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ada.eval.stats.accuracy import Accuracy, Difference, together
from ada.eval.stats.results import Row, own_planners

LEAST_FALL = 0.05  # in accuracy; less is not worth a warning
MOST_CHANCE = 0.01  # McNemar's p-value of a fall that is warned of
RULE = (
    f"at least {100 * LEAST_FALL:.0f} points less than at the largest budget, on the same questions, with a p-value "
    f"below {MOST_CHANCE:g} (McNemar, exact)"
)


@dataclass(frozen=True)
class FallOff:
    """``row`` is the first one, from the largest budget down, whose answers to ``where`` (a set's title, or a kind of
    test question) have fallen from ``before`` to ``after``."""

    row: Row
    place: tuple[str, str | None]  # the set's name, and a kind of its questions, or None for all
    where: str
    before: Accuracy
    after: Accuracy
    change: Difference

    @property
    def figures(self) -> str:
        """Where, from what to what."""
        return (
            f"{self.where}: {100 * self.before.share:.1f} % to {100 * self.after.share:.1f} % "
            f"({100 * self.change.share:+.1f} ± {100 * self.change.reach:.1f})"
        )

    @property
    def sentence(self) -> str:
        """One line for the terminal."""
        return f"{self.row.name}, from budget {self.row.run.budget} down, {self.figures}"


def has_fallen(change: Difference) -> bool:
    """Is this a fall to be warned of?"""
    return change.share <= -LEAST_FALL and change.p_value < MOST_CHANCE


def falls(rows: Iterable[Row]) -> list[FallOff]:
    """Of every model under its own planner, everywhere that it falls off: test questions, their kinds, benchmarks;
    the largest budgets first, and the deepest falls first among them."""
    found = [fall for group in own_planners(rows) for fall in _falls(group)]
    return sorted(found, key=lambda fall: (fall.row.family, -fall.row.run.budget.fraction, fall.change.share))


def change_of(row: Row, whole: Row, place: tuple[str, str | None]) -> Difference:
    """A row against the largest budget's, in one place."""
    name, kind = place
    return Difference.of(row.parts[name].right_of(kind), whole.parts[name].right_of(kind))


def _falls(group: Sequence[Row]) -> list[FallOff]:
    whole, *smaller = sorted(group, key=lambda row: -row.run.budget.fraction)
    found = []
    for place, where in _places(whole).items():
        for row in smaller:
            change = change_of(row, whole, place)
            if has_fallen(change):
                found.append(FallOff(row, place, where, _accuracy(whole, place), _accuracy(row, place), change))
                break
    return found


def _places(row: Row) -> dict[tuple[str, str | None], str]:
    main = row.main.questions
    kinds: dict[tuple[str, str | None], str] = {(main.name, kind): kind for kind in main.kinds}
    return (
        {(main.name, None): main.title}
        | kinds
        | {(name, None): part.questions.title for name, part in row.parts.items() if part is not row.main}
    )


def _accuracy(row: Row, place: tuple[str, str | None]) -> Accuracy:
    name, kind = place
    part = row.parts[name]
    return together([accuracy for own, accuracy in part.kinds.items() if kind in (None, own)])
