"""Writes a sweep's results to its folder: tables, figures and page; warns on the terminal where quality falls off."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import date

from ada.eval.answering.latency_samples import TOKENS, WARM_UP
from ada.eval.report.figures import accuracy_figure, axes_of, subsets_figure
from ada.eval.report.heat_maps import kinds_figure, planners_figure
from ada.eval.report.markdown import to_markdown
from ada.eval.report.page import Notes, page
from ada.eval.report.panels import Drawn, drawn, save
from ada.eval.report.sweep_files import write_csv, write_json, write_marks, write_plans
from ada.eval.settings import SweepSettings
from ada.eval.stats.falloff import RULE, Subset, falls
from ada.eval.stats.results import Row, by_family, by_name
from ada.latency.device_profile import DeviceFingerprint
from llava.files.atomic_write import atomic_write


def write_report(rows: Sequence[Row], device: DeviceFingerprint, settings: SweepSettings, command: str) -> str:
    """Write everything, print warnings of falls, and return the Markdown tables.

    device: what the models ran on; command: the command line that made the sweep.
    """
    found, folder = falls(rows), settings.folder
    notes = Notes(command, date.today().isoformat(), _device_line(device), _method(rows, settings))
    about = {"command": notes.command, "date": notes.date, "device": notes.device, "method": list(notes.method)}
    markdown = to_markdown(rows)
    write_json(folder / "sweep.json", about, rows, found)
    write_csv(folder / "sweep.csv", rows)
    write_marks(folder / "marks.json", rows)
    write_plans(folder / "plans.json", rows)
    figures: dict[str, Drawn] = {}
    for family, own in by_family(rows).items():
        figures |= draw(own, family)
    save(figures, folder / "figures")
    atomic_write(folder / "sweep.md", markdown)
    atomic_write(folder / "sweep.html", page(rows, found, notes, figures))
    for fall in found:
        print(f"warning: quality falls off: {fall.sentence}", file=sys.stderr)
    print(f"the page is {folder / 'sweep.html'}", file=sys.stderr)
    return markdown


def draw(rows: Sequence[Row], family: str) -> dict[str, Drawn]:
    """Draw a family's figures, by the names that its files and the page have for them."""
    main, others = rows[0].main.questions, list(rows[0].parts.items())[1:]
    figures = {f"accuracy-{family}": accuracy_figure(rows)}
    kinds: dict[Subset, str] = {(main.name, kind): kind for kind in main.kinds}
    benchmarks: dict[Subset, str] = {(name, None): part.questions.title for name, part in others}
    for axis in axes_of(rows):
        figures[f"kinds-{family}-{axis.name}"] = subsets_figure(rows, kinds, axis)
        if benchmarks:
            figures[f"benchmarks-{family}-{axis.name}"] = subsets_figure(rows, benchmarks, axis)
    figures[f"plans-{family}"] = planners_figure(rows)
    figures[f"plans-{family}-kinds"] = kinds_figure(by_name(rows)[0])
    return {name: drawn(figure) for name, figure in figures.items()}


def _device_line(device: DeviceFingerprint) -> str:
    threads = f"{device.threads} thread{'s' if device.threads > 1 else ''}"
    return f"{device.device}, {threads}, {device.dtype}, torch {device.torch}, transformers {device.transformers}"


def _method(rows: Sequence[Row], settings: SweepSettings) -> list[str]:
    """Return what was decided on the way, a line each."""
    lines = [
        f"Answers are greedy, at most {settings.max_new_tokens} tokens, in batches of {settings.batch_size}; each row "
        "of a batch runs under its own plan. Right is what matches the test file's answer, apart from case and a full "
        "stop, or what the benchmark's own scorer counts.",
        "Operations are those of the prefill of a question asked alone: vision tower, projector, decoder, scheduler, "
        "head; the mean over a set's questions. The executed share is of all heads and neuron groups.",
        "Intervals of accuracies are Wilson's; those of differences are for paired answers; p-values are McNemar's, "
        "exact and two-sided. None is corrected for the number of comparisons.",
        f"A warning is given where accuracy is {RULE}. Of each model only its first planner is looked at.",
        "How often heads and neuron groups run is counted over the plans that the test questions' answers ran under.",
        "A planner that has nothing to choose, because all or none of the tunable units are granted, shares its "
        "answers and times with the others.",
    ]
    if rows[0].latency:
        lines.insert(
            2,
            f"Times are measured, not estimated: {len(rows[0].latency.ttft_ms)} test questions, drawn at random, each "
            f"asked alone, in batches of 1. The runs take turns at every question, after {WARM_UP} questions that do "
            "not count. The time to first token (TTFT) starts at the opened image: pixels, vision tower, prefill, and "
            "cutting the layers where a plan is new; the same question asked again at once has a warm plan cache. "
            f"Every timed answer is {TOKENS} tokens long, so that {TOKENS - 1} inter-token latencies can be measured. "
            "Medians are shown; sweep.json has 95th percentiles.",
        )
    if len(rows[0].parts) > 1:
        lines.append("MM-Vet and LLaVA-Bench are left out: they need a judge.")
    return lines
