"""A sweep's results as files, in ``--out``: tables, figures, page; and on the terminal, where quality falls off."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from ada.eval.asking import Outcome
from ada.eval.falloff import RULE, falls
from ada.eval.figures import accuracy_figure, axes_of, places_figure, save
from ada.eval.heat_maps import kinds_figure, planners_figure
from ada.eval.markdown import to_markdown
from ada.eval.page import Notes, page
from ada.eval.results import Row, by_family, by_name
from ada.eval.sweep_files import write_csv, write_json, write_marks
from ada.eval.times import TOKENS, WARM_UP
from llava.eval.record_file import write_whole


def write_report(rows: Sequence[Row], outcome: Outcome, options: argparse.Namespace) -> str:
    """Write everything, tell the falls, and return the Markdown tables. outcome: of any of the checkpoints."""
    found = falls(rows)
    notes = _notes(rows, outcome, options)
    about = {"command": notes.command, "date": notes.date, "device": notes.device, "method": list(notes.method)}
    markdown = to_markdown(rows)
    write_json(options.out / "sweep.json", about, rows, found)
    write_csv(options.out / "sweep.csv", rows)
    write_marks(options.out / "marks.json", rows)
    for family, own in by_family(rows).items():
        _save_figures(own, options.out / "figures", family)
    write_whole(options.out / "sweep.md", markdown)
    write_whole(options.out / "sweep.html", page(rows, found, notes))
    for fall in found:
        print(f"warning: quality falls off: {fall.sentence}", file=sys.stderr)
    print(f"the page is {options.out / 'sweep.html'}", file=sys.stderr)
    return markdown


def _save_figures(rows: Sequence[Row], folder: Path, family: str) -> None:
    main, others = rows[0].main.questions, list(rows[0].parts.items())[1:]
    save(accuracy_figure(rows), folder / f"accuracy-{family}")
    for axis in axes_of(rows):
        kinds = [(main.name, kind, kind) for kind in main.kinds]
        save(places_figure(rows, kinds, axis), folder / f"kinds-{family}-{axis.name}")
        if others:
            places = [(name, None, part.questions.title) for name, part in others]
            save(places_figure(rows, places, axis), folder / f"benchmarks-{family}-{axis.name}")
    save(planners_figure(rows), folder / f"plans-{family}")
    save(kinds_figure(by_name(rows)[0]), folder / f"plans-{family}-kinds")


def _notes(rows: Sequence[Row], outcome: Outcome, options: argparse.Namespace) -> Notes:
    here = outcome.surroundings
    device = f"{here.device}, {here.threads} thread{'s' if here.threads > 1 else ''}, {here.dtype}"
    method = [
        f"Answers are greedy, at most {options.max_new_tokens} tokens, in batches of {options.batch_size}; each row of a "
        "batch runs under its own plan. Right is what the test file's answer says, dress aside, or what the benchmark's own "
        "scorer counts.",
        "Operations are those of the prefill of a question asked alone: vision tower, projector, decoder, scheduler, head; "
        "the mean over the test questions. Shares of what runs are of all heads and neuron groups.",
        "Intervals of accuracies are Wilson's; those of differences are for paired answers; p-values are McNemar's, exact "
        "and two-sided. None is corrected for the number of comparisons.",
        f"A warning is given where accuracy is {RULE}. Of each model only its first planner is looked at.",
        "How often heads and neuron groups run is counted over the plans that the test questions' answers ran under.",
        "A planner that has nothing to choose, because all or none of the tunable units are granted, shares its answers "
        "and times with the others.",
    ]
    if rows[0].times:
        method.insert(
            2,
            f"Times are measured, not estimated: {len(rows[0].times.first_token_ms)} test questions, drawn at random, each "
            f"asked alone (batch size 1); the runs take turns at every question, behind {WARM_UP} that do not count. "
            f"The time to first token runs from the opened picture on: pixels, vision tower, prefill. Every timed answer "
            f"is {TOKENS} tokens long, so that there are {TOKENS - 1} further tokens to time. Medians are shown; sweep.json "
            "has 95th percentiles.",
        )
    if len(rows[0].parts) > 1:
        method.append("MM-Vet and LLaVA-Bench are left out: they need a judge.")
    versions = f"torch {here.torch}, transformers {here.transformers}"
    return Notes(options.command, date.today().isoformat(), f"{device}, {versions}", method)
