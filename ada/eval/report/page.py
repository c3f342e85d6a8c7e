"""Makes the sweep's page, one HTML file: tables, curves, heat maps, examples, and where quality falls off."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import jinja2

from ada.eval.report.examples import examples
from ada.eval.report.figures import axes_of
from ada.eval.report.markdown import (
    Cells,
    benchmarks_table,
    interval,
    kinds_table,
    percent,
    retained,
    runs_table,
    several_tokens,
    signed,
    tokens_table,
)
from ada.eval.report.panels import Drawn, data_url
from ada.eval.stats.accuracy import Accuracy, Difference
from ada.eval.stats.falloff import RULE, FallOff, change_of, has_fallen
from ada.eval.stats.results import FAMILIES, Row, by_family, by_name, largest_first

CONSTANT_COLUMNS = 3  # of the table by kind of question, before its budgets


@dataclass(frozen=True)
class Notes:
    """What the page says next to the figures; ``method`` has a line for each decision made on the way."""

    command: str
    date: str
    device: str
    method: Sequence[str]


@dataclass(frozen=True)
class Card:
    """What a budget retains and costs, at a glance; ``ttft`` is empty where nothing was timed."""

    budget: str
    retained: str
    cost: str
    ttft: str


@dataclass(frozen=True)
class Section:
    """One kind of unit on the page. Figures are data URLs; panels are by the title of their axis.

    ``falls``: what has fallen off, by model, planner and budget; ``fallen``: the class of cells of ``kinds`` that are
    shaded, by line and column after the heading, from 0.
    """

    family: str
    title: str
    leader: str
    cards: Sequence[Card]
    falls: Mapping[str, Sequence[str]]
    accuracy: str
    runs: Cells
    tokens: Cells | None
    kinds: Cells
    fallen: Mapping[tuple[int, int], str]
    kind_panels: Mapping[str, str]
    benchmarks: Cells | None
    benchmark_panels: Mapping[str, str]
    plans: str
    plans_by_kind: str


def page(rows: Sequence[Row], falls: Sequence[FallOff], notes: Notes, figures: Mapping[str, Drawn]) -> str:
    """Return the page as HTML that is well-formed XML too. figures: by their files' names."""
    main, others = rows[0].main.questions, list(rows[0].parts.values())[1:]
    asked = f"{len(main.items):,} {main.title} in {len(main.kinds)} kinds"
    if others:
        asked += f", {sum(len(part.questions.items) for part in others):,} questions of {len(others)} benchmarks"
    shown: dict[str, object] = {
        "models": ", ".join(dict.fromkeys(row.run.label for row in rows)),
        "asked": asked,
        "notes": notes,
        "rule": RULE,
        "sections": [_section(family, own, falls, figures) for family, own in by_family(rows).items()],
        "examples": examples(rows),
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ada.eval.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html.j2").render(shown)


def _section(family: str, rows: Sequence[Row], falls: Sequence[FallOff], figures: Mapping[str, Drawn]) -> Section:
    groups = by_name(rows)
    leader = groups[0]
    several = len(leader[0].parts) > 1
    return Section(
        family=family,
        title=FAMILIES[family],
        leader=leader[0].name,
        cards=[_card(row, leader) for row in leader],
        falls=_falls_by_budget(fall for fall in falls if fall.row.family == family),
        accuracy=data_url(figures[f"accuracy-{family}"], "svg"),
        runs=runs_table(groups, _with_p_value),
        tokens=tokens_table(groups) if several_tokens(rows) else None,
        kinds=kinds_table(leader, _on_two_lines),
        fallen=_fallen(leader),
        kind_panels=_panels("kinds", leader, figures),
        benchmarks=benchmarks_table(leader, _on_two_lines) if several else None,
        benchmark_panels=_panels("benchmarks", leader, figures) if several else {},
        plans=data_url(figures[f"plans-{family}"], "png"),
        plans_by_kind=data_url(figures[f"plans-{family}-kinds"], "png"),
    )


def _card(row: Row, leader: Sequence[Row]) -> Card:
    share = retained(row, leader)
    cost = 100 * row.main.prefill_gflops / largest_first(leader)[0].main.prefill_gflops
    ttft = f"{row.latency.ttft_p50_ms:.3g} ms" if row.latency else ""
    return Card(row.run.budget_text, f"{share} %" if share else "none", f"{cost:.0f} %", ttft)


def _falls_by_budget(falls: Iterable[FallOff]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for fall in falls:
        groups.setdefault(f"{fall.row.name}, from budget {fall.row.run.budget_text} down", []).append(fall.figures)
    return groups


def _fallen(leader: Sequence[Row]) -> dict[tuple[int, int], str]:
    """Return the class of each cell of the table by kind of question that has fallen off."""
    main, largest = leader[0].main.questions, largest_first(leader)[0]
    return {
        (line, CONSTANT_COLUMNS + column): "fallen"
        for line, kind in enumerate([*main.kinds, None])
        for column, row in enumerate(leader)
        if has_fallen(change_of(row, largest, (main.name, kind)))
    }


def _panels(subsets: str, leader: Sequence[Row], figures: Mapping[str, Drawn]) -> dict[str, str]:
    family = leader[0].family
    return {axis.title: data_url(figures[f"{subsets}-{family}-{axis.name}"], "svg") for axis in axes_of(leader)}


def _with_p_value(difference: Difference) -> str:
    p = difference.p_value
    return f"{signed(difference)}, {'p < 0.001' if p < 0.001 else f'p = {p:.3f}'}"


def _on_two_lines(accuracy: Accuracy) -> str:
    return f"{percent(accuracy.share)}\n{interval(accuracy)}"
