"""Makes a sweep's tables, and writes them as Markdown for a README.

For each kind of unit there is a table of all runs, then one by kind of question and one by benchmark for the first
model and planner.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ada.eval.questions.question_set import QuestionSet
from ada.eval.stats.accuracy import Accuracy, Difference, best_constants, pooled
from ada.eval.stats.results import FAMILIES, Row, by_family, by_name, largest_first

Cells = list[list[str]]
"""Lines of a table, the first of which is its heading; a line break within a cell is a newline."""


def to_markdown(rows: Sequence[Row]) -> str:
    """Write a sweep's tables as Markdown."""
    parts = []
    for family, own in by_family(rows).items():
        groups = by_name(own)
        leader = groups[0]
        parts += [f"### {FAMILIES[family]}", lines_of(runs_table(groups))]
        if several_tokens(own):
            parts += ["Image tokens and budgets:", lines_of(tokens_table(groups))]
        parts += [f"{leader[0].name}, by kind of question:", lines_of(kinds_table(leader))]
        if len(leader[0].parts) > 1:
            parts += [f"{leader[0].name}, by benchmark:", lines_of(benchmarks_table(leader))]
    return "\n\n".join(parts) + "\n"


def lines_of(cells: Cells) -> str:
    """Write one table as Markdown lines."""
    texts = ["| " + " | ".join(cell.replace("\n", "<br>") for cell in line) + " |" for line in cells]
    return "\n".join([texts[0], "|" + "---|" * len(cells[0]), *texts[1:]])


def runs_table(groups: Sequence[Sequence[Row]], against: Callable[[Difference], str] | None = None) -> Cells:
    """Make the table of all runs: costs of the first model and planner, then the accuracy of each.

    against: writes the difference of the others to the first.
    """
    against = against or signed
    leader = groups[0]
    lines = [
        ["", *budgets(leader)],
        ["executed share", *(f"{row.main.share:.3f}" for row in leader)],
        ["prefill, GFLOPs", *(gflops(row.main.prefill_gflops) for row in leader)],
    ]
    timed = [row.latency for row in leader if row.latency]
    if len(timed) == len(leader):
        lines.append(["TTFT, ms", *(f"{latency.ttft_p50_ms:.3g}" for latency in timed)])
        lines.append(["TTFT, warm plan cache, ms", *(f"{latency.warm_ttft_p50_ms:.3g}" for latency in timed)])
        lines.append(["inter-token latency, ms", *(f"{latency.inter_token_p50_ms:.3g}" for latency in timed)])
    lines.append(["accuracy retained, %", *(retained(row, leader) or "" for row in leader)])
    for group in groups:
        cells = [with_interval(row.accuracy) + ("" if group is leader else f"\n{against(row.lead)}") for row in group]
        lines.append([group[0].name, *cells])
    return lines


def several_tokens(rows: Sequence[Row]) -> bool:
    """Return whether the rows read different amounts of image tokens, or choose them differently."""
    return len({row.run.tokens for row in rows}) > 1


def tokens_table(groups: Sequence[Sequence[Row]]) -> Cells:
    """Make the table of image tokens by budget: accuracy in percent, and the mean operations of a prefill.

    Operations are in percent of those of the first line at its largest budget.
    """
    full = largest_first(groups[0])[0].main.prefill_gflops
    lines = [["", *budgets(groups[0])]]
    for group in groups:
        cells = [f"{percent(row.accuracy.share)}\n{100 * row.main.prefill_gflops / full:.0f} % ops" for row in group]
        lines.append([group[0].name, *cells])
    return lines


def retained(row: Row, leader: Sequence[Row]) -> str | None:
    """Write a row's accuracy in percent of the largest budget's; None where that one has nothing right."""
    largest = largest_first(leader)[0].accuracy.correct
    return percent(row.accuracy.correct / largest) if largest else None


def kinds_table(rows: Sequence[Row], shown: Callable[[Accuracy], str] | None = None) -> Cells:
    """Make one model and planner's table with a line for each kind of test question, then one for all of them."""
    shown = shown or _share
    constants = best_constants(rows[0].main.questions.items)
    lines = [["kind", "questions", "best constant answer, %", *budgets(rows)]]
    for kind, (answer, constant) in constants.items():
        shares = [shown(row.main.kinds[kind]) for row in rows]
        lines.append([kind, str(constant.total), f"{percent(constant.share)} ({answer})", *shares])
    everything = pooled(part for _, part in constants.values())
    shares = [shown(row.accuracy) for row in rows]
    lines.append(["all", str(everything.total), percent(everything.share), *shares])
    return lines


def benchmarks_table(rows: Sequence[Row], shown: Callable[[Accuracy], str] | None = None) -> Cells:
    """Make one model and planner's table with a line for each figure of a benchmark's own scorer."""
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
    """Return the share that the best constant answers, one for each kind, get right; in [0, 1]."""
    return pooled(part for _, part in best_constants(questions.items).values()).share


def budgets(rows: Sequence[Row]) -> list[str]:
    """Write a heading for each row's budget."""
    return [f"budget {row.run.budget_text}" for row in rows]


def _share(accuracy: Accuracy) -> str:
    return percent(accuracy.share)


def with_interval(accuracy: Accuracy) -> str:
    """Write an accuracy in percent, with its 95 % interval in brackets."""
    return f"{percent(accuracy.share)} ({interval(accuracy)})"


def interval(accuracy: Accuracy) -> str:
    """Write an accuracy's 95 % interval in percent."""
    low, high = accuracy.interval
    return f"{percent(low)} to {percent(high)}"


def signed(difference: Difference) -> str:
    """Write a difference in points, with the reach of its 95 % interval."""
    return f"{100 * difference.share:+.1f} ± {100 * difference.reach:.1f}"


def percent(share: float) -> str:
    """Write a share in percent, without the percent sign."""
    return f"{100 * share:.1f}"


def number(value: float | None) -> str:
    """Write a scorer's figure."""
    return "undefined" if value is None else f"{value:.1f}"


def gflops(value: float) -> str:
    """Write GFLOPs with three significant digits, or more where the integer part has more."""
    return f"{value:#.3g}" if value < 999 else f"{value:,.0f}"
