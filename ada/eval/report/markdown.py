"""The tables of a sweep as Markdown for a README: for each kind of unit one of all runs, then the first model and
planner by kind of question and by benchmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ada.eval.questions.question_set import QuestionSet
from ada.eval.stats.accuracy import Accuracy, Difference, best_constants, together
from ada.eval.stats.results import FAMILIES, Row, by_family, by_name

Cells = list[list[str]]


def to_markdown(rows: Sequence[Row]) -> str:
    """All tables."""
    parts = []
    for family, own in by_family(rows).items():
        groups = by_name(own)
        leader = groups[0]
        parts += [f"### {FAMILIES[family]}", lines_of(runs_table(groups))]
        parts += [f"{leader[0].name}, by kind of question:", lines_of(kinds_table(leader))]
        if len(leader[0].parts) > 1:
            parts += [f"{leader[0].name}, by benchmark:", lines_of(benchmarks_table(leader))]
    return "\n\n".join(parts) + "\n"


def lines_of(cells: Cells) -> str:
    """A table of cells, the first line of which is its heading."""
    texts = ["| " + " | ".join(line) + " |" for line in cells]
    return "\n".join([texts[0], "|" + "---|" * len(cells[0]), *texts[1:]])


def runs_table(groups: Sequence[Sequence[Row]], against: Callable[[Difference], str] | None = None) -> Cells:
    """What the first model and planner cost and keep; then its accuracy, and that of the others ``against`` it."""
    against = against or signed
    leader = groups[0]
    whole = max(leader, key=lambda row: row.run.budget.fraction).accuracy.correct
    lines = [
        ["", *budgets(leader)],
        ["executed share", *(f"{row.main.share:.3f}" for row in leader)],
        ["prefill, GFLOPs", *(gflops(row.main.prefill_gflops) for row in leader)],
    ]
    if all(row.times for row in leader):
        lines.append(["time to first token, ms", *(f"{row.times.first:.3g}" for row in leader if row.times)])
        lines.append(["the same, plan seen before", *(f"{row.times.again:.3g}" for row in leader if row.times)])
        lines.append(["time per further token, ms", *(f"{row.times.token:.3g}" for row in leader if row.times)])
    lines.append(["kept, %", *(percent(row.accuracy.correct / whole) if whole else "" for row in leader)])
    for group in groups:
        cells = [with_interval(row.accuracy) + ("" if group is leader else f"<br>{against(row.lead)}") for row in group]
        lines.append([group[0].name, *cells])
    return lines


def kinds_table(rows: Sequence[Row], shown: Callable[[Accuracy], str] | None = None) -> Cells:
    """One model and planner: a line a kind of test question; the last one is all of them."""
    shown = shown or _share
    constants = best_constants(rows[0].main.questions.items)
    lines = [["kind", "questions", "best constant answer, %", *budgets(rows)]]
    for kind, (answer, constant) in constants.items():
        shares = [shown(row.main.kinds[kind]) for row in rows]
        lines.append([kind, str(constant.total), f"{percent(constant.share)} ({answer})", *shares])
    everything = together(part for _, part in constants.values())
    shares = [shown(row.accuracy) for row in rows]
    lines.append(["all", str(everything.total), percent(everything.share), *shares])
    return lines


def benchmarks_table(rows: Sequence[Row], shown: Callable[[Accuracy], str] | None = None) -> Cells:
    """One model and planner: a line a benchmark's figure, as its own scorer gives it."""
    shown = shown or with_interval
    lines = [["benchmark", "figure", "questions", "best constant answer, %", *budgets(rows)]]
    for name, part in list(rows[0].parts.items())[1:]:
        count, constant = str(len(part.questions.items)), percent(constant_share(part.questions))
        accuracies = [shown(row.parts[name].accuracy) for row in rows]
        lines.append([part.questions.title, "accuracy, %", count, constant, *accuracies])
        for figure in part.figures:
            if figure != "accuracy, %":
                values = [row.parts[name].figures.get(figure) for row in rows]
                lines.append([part.questions.title, figure, count, "", *(number(value) for value in values)])
    return lines


def constant_share(questions: QuestionSet) -> float:
    """What the best constant answers, one for each kind, get right; in [0, 1]."""
    return together(part for _, part in best_constants(questions.items).values()).share


def budgets(rows: Sequence[Row]) -> list[str]:
    """Headings."""
    return [f"budget {row.run.budget}" for row in rows]


def _share(accuracy: Accuracy) -> str:
    return percent(accuracy.share)


def with_interval(accuracy: Accuracy) -> str:
    """In percent, its 95 % interval in brackets."""
    low, high = accuracy.interval
    return f"{percent(accuracy.share)} ({percent(low)} to {percent(high)})"


def signed(difference: Difference) -> str:
    """In points, with the reach of its 95 % interval."""
    return f"{100 * difference.share:+.1f} ± {100 * difference.reach:.1f}"


def percent(share: float) -> str:
    """Without the sign."""
    return f"{100 * share:.1f}"


def number(value: float | None) -> str:
    """A scorer's figure."""
    return "undefined" if value is None else f"{value:.1f}"


def gflops(value: float) -> str:
    """Three digits."""
    return f"{value:#.3g}" if value < 999 else f"{value:,.0f}"
