"""What the answers of a sweep come to: a row a run, with a part for each set of questions."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from ada.eval.answering.answer_file import GivenAnswer
from ada.eval.answering.latency_samples import LatencySamples
from ada.eval.answering.model_specs import Run
from ada.eval.questions.question_set import Figures, QuestionSet
from ada.eval.stats.accuracy import Accuracy, Difference, tally, together
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
        """``answers`` in the questions' order."""
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
        """Over all kinds."""
        return together(self.kinds.values())

    def right_of(self, kind: str | None) -> list[bool]:
        """What was right, of one kind, or of all."""
        pairs = zip(self.questions.items, self.right, strict=True)
        return [hit for item, hit in pairs if kind is None or item.kind == kind]


@dataclass(frozen=True)
class Row:
    """One run. ``parts`` by the set's name, the test questions first; ``leads``: the same sets' differences to the
    family's first model and planner at the same budget."""

    run: Run
    family: str
    parts: dict[str, Part]
    leads: dict[str, Difference]
    times: LatencySamples | None

    @property
    def main(self) -> Part:
        """The test questions'."""
        return next(iter(self.parts.values()))

    @property
    def accuracy(self) -> Accuracy:
        """On the test questions."""
        return self.main.accuracy

    @property
    def lead(self) -> Difference:
        """On the test questions."""
        return next(iter(self.leads.values()))

    @property
    def name(self) -> str:
        """Of its model and planner."""
        return f"{self.run.label}, {self.run.planner}"


def make_rows(
    runs: Iterable[Run],
    families: Mapping[str, str],
    parts: Mapping[Run, dict[str, Part]],
    times: Mapping[Run, LatencySamples],
) -> list[Row]:
    """One row a run, in order. families: a model's label -> its kind of unit."""
    rows: list[Row] = []
    first: dict[tuple[str, float], dict[str, Part]] = {}  # what the others of a family are compared with
    for run in runs:
        own, family = parts[run], families[run.label]
        leader = first.setdefault((family, run.budget.fraction), own)
        leads = {name: Difference.of(part.right, leader[name].right) for name, part in own.items()}
        rows.append(Row(run, family, own, leads, times.get(run)))
    return rows


def by_family(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of each kind of unit."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.family, []).append(row)
    return found


def by_name(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows of one model and planner together, a budget each."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.name, []).append(row)
    return list(found.values())


def own_planners(rows: Iterable[Row]) -> list[list[Row]]:
    """Of every model, the rows of its first planner: the one that it is meant to run with."""
    first: dict[str, list[Row]] = {}
    for group in by_name(rows):
        first.setdefault(group[0].run.label, group)
    return list(first.values())
