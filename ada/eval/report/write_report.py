"""A sweep's results as files, in ``--out``: tables, figures, page; and on the terminal, where quality falls off."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import date

from ada.eval.answering.ask import Outcome
from ada.eval.answering.latency_samples import TOKENS, WARM_UP
from ada.eval.report.figures import accuracy_figure, axes_of, places_figure
from ada.eval.report.heat_maps import kinds_figure, planners_figure
from ada.eval.report.markdown import to_markdown
from ada.eval.report.page import Notes, page
from ada.eval.report.panels import Drawn, drawn, save
from ada.eval.report.sweep_files import write_csv, write_json, write_marks, write_plans
from ada.eval.stats.falloff import RULE, falls
from ada.eval.stats.results import Row, by_family, by_name
from llava.files.atomic_write import atomic_write

Place = tuple[str, str | None, str]


def write_report(rows: Sequence[Row], outcome: Outcome, options: argparse.Namespace) -> str:
    """Write everything, tell the falls, and return the Markdown tables. outcome: of any of the checkpoints."""
    found = falls(rows)
    notes = _notes(rows, outcome, options)
    about = {"command": notes.command, "date": notes.date, "device": notes.device, "method": list(notes.method)}
    markdown = to_markdown(rows)
    write_json(options.out / "sweep.json", about, rows, found)
    write_csv(options.out / "sweep.csv", rows)
    write_marks(options.out / "marks.json", rows)
    write_plans(options.out / "plans.json", rows)
    figures: dict[str, Drawn] = {}
    for family, own in by_family(rows).items():
        figures |= draw(own, family)
    save(figures, options.out / "figures")
    atomic_write(options.out / "sweep.md", markdown)
    atomic_write(options.out / "sweep.html", page(rows, found, notes, figures))
    for fall in found:
        print(f"warning: quality falls off: {fall.sentence}", file=sys.stderr)
    print(f"the page is {options.out / 'sweep.html'}", file=sys.stderr)
    return markdown


def draw(rows: Sequence[Row], family: str) -> dict[str, Drawn]:
    """A family's figures by the names that its files and the page have for them."""
    main, others = rows[0].main.questions, list(rows[0].parts.items())[1:]
    figures = {f"accuracy-{family}": accuracy_figure(rows)}
    kinds: list[Place] = [(main.name, kind, kind) for kind in main.kinds]
    benchmarks: list[Place] = [(name, None, part.questions.title) for name, part in others]
    for axis in axes_of(rows):
        figures[f"kinds-{family}-{axis.name}"] = places_figure(rows, kinds, axis)
        if benchmarks:
            figures[f"benchmarks-{family}-{axis.name}"] = places_figure(rows, benchmarks, axis)
    figures[f"plans-{family}"] = planners_figure(rows)
    figures[f"plans-{family}-kinds"] = kinds_figure(by_name(rows)[0])
    return {name: drawn(figure) for name, figure in figures.items()}


def _notes(rows: Sequence[Row], outcome: Outcome, options: argparse.Namespace) -> Notes:
    here = outcome.surroundings
    device = f"{here.device}, {here.threads} thread{'s' if here.threads > 1 else ''}, {here.dtype}"
    versions = f"torch {here.torch}, transformers {here.transformers}"
    return Notes(options.command, date.today().isoformat(), f"{device}, {versions}", _method(rows, options))


def _method(rows: Sequence[Row], options: argparse.Namespace) -> list[str]:
    """What was decided on the way, a line each."""
    lines = [
        f"Answers are greedy, at most {options.max_new_tokens} tokens, in batches of {options.batch_size}; each row of "
        "a batch runs under its own plan. Right is what the test file's answer says, whatever its dress, or what the "
        "benchmark's own scorer counts.",
        "Operations are those of the prefill of a question asked alone: vision tower, projector, decoder, scheduler, "
        "head; the mean over a set's questions. The executed share is of all heads and neuron groups.",
        "Intervals of accuracies are Wilson's; those of differences are for paired answers; p-values are McNemar's, "
        "exact and two-sided. None is corrected for the number of comparisons.",
        f"A warning is given where accuracy is {RULE}. Of each model only its first planner is looked at.",
        "How often heads and neuron groups run is counted over the plans that the test questions' answers ran under.",
        "A planner that has nothing to choose, because all or none of the tunable units are granted, shares its "
        "answers and times with the others.",
    ]
    if rows[0].times:
        count = len(rows[0].times.first_token_ms)
        lines.insert(
            2,
            f"Times are measured, not estimated: {count} test questions, drawn at random, each asked alone, in batches "
            f"of 1. The runs take turns at every question, after {WARM_UP} questions that do not count. The time to "
            "first token runs from the opened picture on: pixels, vision tower, prefill, and cutting the layers where "
            "a plan is new; the same question asked again at once finds them cut. Every timed answer is "
            f"{TOKENS} tokens long, so that {TOKENS - 1} further tokens can be timed. Medians are shown; sweep.json "
            "has 95th percentiles.",
        )
    if len(rows[0].parts) > 1:
        lines.append("MM-Vet and LLaVA-Bench are left out: they need a judge.")
    return lines
