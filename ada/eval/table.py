"""The rows of a comparison: as JSON, and as Markdown for a README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ada.eval.accuracy import Accuracy, Difference, best_constants, is_right, tally, together
from ada.eval.answer_file import GivenAnswer
from ada.eval.contestants import Run
from ada.eval.question_file import Question

Answers = Mapping[int | str, GivenAnswer]


@dataclass(frozen=True)
class Row:
    """One run's figures. ``lead`` is the difference to the table's first model and planner at the same budget."""

    run: Run
    share: float  # mean executed share of all switches, in [0, 1]
    prefill_gflops: float  # mean
    kinds: dict[str, Accuracy]
    right: tuple[bool, ...]
    lead: Difference

    @property
    def accuracy(self) -> Accuracy:
        """Over all kinds."""
        return together(self.kinds)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; all shares are in [0, 1]."""
        return {
            "model": self.run.label,
            "planner": self.run.planner,
            "budget": self.run.budget.fraction,
            "executed_share": self.share,
            "prefill_gflops": self.prefill_gflops,
            **_accuracy_json(self.accuracy),
            "lead": {"share": self.lead.share, "reach": self.lead.reach},
            "kinds": {kind: _accuracy_json(accuracy) for kind, accuracy in self.kinds.items()},
        }


def make_rows(questions: Sequence[Question], answers: Mapping[Run, Answers]) -> list[Row]:
    """One row a run, in the order of ``answers``."""
    rows: list[Row] = []
    first: dict[float, tuple[bool, ...]] = {}  # the first run at each budget: what the others are compared with
    for run, given in answers.items():
        mine = [given[question.question_id] for question in questions]
        right = tuple(is_right(a.text, q.answer) for a, q in zip(mine, questions, strict=True))
        lead = Difference.of(right, first.setdefault(run.budget.fraction, right))
        share, price = fmean(a.share for a in mine), fmean(a.prefill_gflops for a in mine)
        rows.append(Row(run, share, price, tally(questions, right), right, lead))
    return rows


def to_json(questions: Sequence[Question], rows: Sequence[Row]) -> dict[str, Any]:
    """Everything that was measured."""
    constants = best_constants(questions)
    return {
        "questions": len(questions),
        "best_constant": {
            kind: {"answer": answer, **_accuracy_json(accuracy)} for kind, (answer, accuracy) in constants.items()
        },
        "best_constant_accuracy": together({kind: part for kind, (_, part) in constants.items()}).share,
        "rows": [row.to_json() for row in rows],
    }


def to_markdown(questions: Sequence[Question], rows: Sequence[Row]) -> str:
    """A column a budget; below, for each model and planner, a line a kind."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.run.label, row.run.planner), []).append(row)
    parts = [_runs_table(list(groups.values()))]
    parts += [
        f"By kind: {label}, planner {planner}\n\n{_kinds_table(questions, own)}"
        for (label, planner), own in groups.items()
    ]
    return "\n\n".join(parts) + "\n"


def _runs_table(groups: Sequence[Sequence[Row]]) -> str:
    """What the first model and planner cost and keep; then its accuracy, and that of the others against it."""
    leader = groups[0]
    whole = max(leader, key=lambda row: row.run.budget.fraction).accuracy.correct
    lines = [
        ["", *(f"budget {row.run.budget}" for row in leader)],
        ["executed share", *(f"{row.share:.3f}" for row in leader)],
        ["prefill, GFLOPs", *(_gflops(row.prefill_gflops) for row in leader)],
        ["kept, %", *(_percent(row.accuracy.correct / whole) if whole else "" for row in leader)],
    ]
    for group in groups:
        cells = [_accuracy(row) + ("" if group is leader else f"<br>{_lead(row)}") for row in group]
        lines.append([f"{group[0].run.label}, {group[0].run.planner}", *cells])
    return _markdown(lines)


def _accuracy(row: Row) -> str:
    low, high = row.accuracy.interval
    return f"{_percent(row.accuracy.share)} ({_percent(low)} to {_percent(high)})"


def _lead(row: Row) -> str:
    return f"{100 * row.lead.share:+.1f} ± {100 * row.lead.reach:.1f}"


def _kinds_table(questions: Sequence[Question], rows: Sequence[Row]) -> str:
    constants = best_constants(questions)
    lines = [["kind", "questions", "best constant answer, %", *(f"budget {row.run.budget}" for row in rows)]]
    for kind, (answer, constant) in constants.items():
        shares = [_percent(row.kinds[kind].share) for row in rows]
        lines.append([kind, str(constant.total), f"{_percent(constant.share)} ({answer})", *shares])
    everything = together({kind: part for kind, (_, part) in constants.items()})
    shares = [_percent(row.accuracy.share) for row in rows]
    lines.append(["all", str(everything.total), _percent(everything.share), *shares])
    return _markdown(lines)


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    texts = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([texts[0], "|" + "---|" * len(lines[0]), *texts[1:]])


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _gflops(value: float) -> str:
    return f"{value:#.3g}" if value < 999 else f"{value:,.0f}"


def _accuracy_json(accuracy: Accuracy) -> dict[str, Any]:
    low, high = accuracy.interval
    return {"correct": accuracy.correct, "total": accuracy.total, "accuracy": accuracy.share, "interval": [low, high]}
