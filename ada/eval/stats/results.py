"""Sums up a sweep's answers: a row for each run, with a part for each set of questions."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from ada.eval.answering.answer_file import GivenAnswer
from ada.eval.answering.latency_samples import LatencySamples
from ada.eval.answering.model_specs import Run
from ada.eval.questions.question_set import Figures, QuestionSet
from ada.eval.stats.accuracy import Accuracy, Difference, pooled, tally
from ada.eval.stats.plan_counts import Frequencies, plan_frequencies

FAMILIES = {"H": "AdaLLaVA-H: heads and neurons", "L": "AdaLLaVA-L: whole layers"}


@dataclass(frozen=True)
class Part:
    """A run's answers to one set. ``share`` of all switches that ran and ``prefill_gflops`` are means."""

    questions: QuestionSet
    texts: tuple[str, ...]
    right: tuple[bool, ...]
    figures: Figures
    share: float
    prefill_gflops: float
    plans: Frequencies

    @classmethod
    def of(cls, questions: QuestionSet, answers: Sequence[GivenAnswer]) -> Part:
        """Mark and score ``answers``, which are in the questions' order."""
        texts = tuple(answer.text for answer in answers)
        return cls(
            questions,
            texts,
            tuple(item.is_right(text) for item, text in zip(questions.items, texts, strict=True)),
            questions.score([item.record(text) for item, text in zip(questions.items, texts, strict=True)]),
            fmean(answer.share for answer in answers),
            fmean(answer.prefill_gflops for answer in answers),
            plan_frequencies([item.kind for item in questions.items], answers),
        )

    @functools.cached_property
    def kinds(self) -> dict[str, Accuracy]:
        """Accuracy by kind of question."""
        return tally(self.questions.items, self.right)

    @property
    def accuracy(self) -> Accuracy:
        """Accuracy over all kinds."""
        return self.accuracy_of(None)

    def accuracy_of(self, kind: str | None) -> Accuracy:
        """Return the accuracy on one kind of question; None for all."""
        return pooled(self.kinds.values()) if kind is None else self.kinds[kind]

    def right_of(self, kind: str | None) -> list[bool]:
        """Return whether each answer is right, for one kind of question; None for all."""
        pairs = zip(self.questions.items, self.right, strict=True)
        return [hit for item, hit in pairs if kind is None or item.kind == kind]


@dataclass(frozen=True)
class Row:
    """One run.

    ``parts`` by the set's name, the test questions first; ``leads``: the same sets' differences to the family's first
    model and planner at the same budget; ``latency``: None where nothing was timed.
    """

    run: Run
    family: str
    parts: dict[str, Part]
    leads: dict[str, Difference]
    latency: LatencySamples | None

    @property
    def main(self) -> Part:
        """The part of the test questions."""
        return next(iter(self.parts.values()))

    @property
    def accuracy(self) -> Accuracy:
        """Accuracy on the test questions."""
        return self.main.accuracy

    @property
    def lead(self) -> Difference:
        """Difference to the family's first model and planner on the test questions."""
        return next(iter(self.leads.values()))

    @property
    def name(self) -> str:
        """Name of its model, planner and image tokens."""
        return self.run.name


def make_rows(
    families: Mapping[str, str], parts: Mapping[Run, dict[str, Part]], latency: Mapping[Run, LatencySamples]
) -> list[Row]:
    """Make a row of each run in ``parts``, in order. families: a model's label -> its kind of unit."""
    rows: list[Row] = []
    first: dict[tuple[str, float], dict[str, Part]] = {}  # what the others of a family are compared with
    for run, own in parts.items():
        family = families[run.label]
        leader = first.setdefault((family, run.budget.fraction), own)
        leads = {name: Difference.of(part.right, leader[name].right) for name, part in own.items()}
        rows.append(Row(run, family, own, leads, latency.get(run)))
    return rows


def largest_first(rows: Iterable[Row]) -> list[Row]:
    """Sort rows by their budgets, the largest first."""
    return sorted(rows, key=lambda row: -row.run.budget.fraction)


def by_family(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Group rows by kind of unit."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.family, []).append(row)
    return found


def by_name(rows: Iterable[Row]) -> list[list[Row]]:
    """Group rows by model, planner and image tokens; a group has a row for each budget."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.name, []).append(row)
    return list(found.values())


def own_planners(rows: Iterable[Row]) -> list[list[Row]]:
    """Return for every model the rows of its first planner, the one that it is meant to run with."""
    first: dict[str, list[Row]] = {}
    for group in by_name(rows):
        first.setdefault(group[0].run.label, group)
    return list(first.values())
