"""Compares two finished sweeps on the same questions, paired, by planner, budget, set and kind of question."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ada.eval.report.markdown import lines_of, percent, signed
from ada.eval.report.sweep_files import csv_text
from ada.eval.stats.accuracy import Accuracy, Difference, holm
from llava.errors import DataError, OptionError
from llava.files.atomic_write import atomic_write
from llava.files.fields import list_of, objects_of, required_field, typed
from llava.files.jsonl import read_json


@dataclass(frozen=True)
class Pair:
    """B against A on one ``kind`` of the questions of the set ``title``.

    ``p_holm``: the p-value, adjusted for the number of subsets on which these two runs are compared.
    """

    models: tuple[str, str]
    planner: str
    image_tokens: str  # empty where the model's default
    budget: float
    title: str
    kind: str
    a: Accuracy
    b: Accuracy
    change: Difference
    p_holm: float = 1.0

    def cells(self) -> dict[str, Any]:
        """Return the pair as a line of compare.csv and compare.json."""
        return {
            "model_a": self.models[0],
            "model_b": self.models[1],
            "planner": self.planner,
            "image_tokens": self.image_tokens or None,
            "budget": self.budget,
            "set": self.title,
            "kind": self.kind,
            "questions": self.change.total,
            "a": self.a.share,
            "b": self.b.share,
            "difference": self.change.share,
            "reach": self.change.reach,
            "only_a": self.change.losses,
            "only_b": self.change.gains,
            "p": self.change.p_value,
            "p_holm": self.p_holm,
        }


def compare(folders: tuple[Path, Path], out: Path | None = None) -> str:
    """Compare two sweeps' folders, as Markdown; with ``out`` also as compare.json, .csv and .md in that folder.

    Raises ``DataError`` for a folder without a finished sweep, and for sweeps of different questions.
    """
    one, other = (read_marks(folder) for folder in folders)
    sets = _same_questions(one, other, folders)
    runs = _matched(one, other, folders)
    pairs = [pair for a, b in runs for pair in _adjusted(list(_pairs(sets, one["sets"], a, b)))]
    markdown = to_markdown(pairs, folders)
    if out:
        _write(out, pairs, markdown)
    return markdown


def read_marks(folder: Path) -> dict[str, Any]:
    """Read a sweep's marks.json. Raises ``DataError`` where there is none, or none that can be used."""
    path = folder / "marks.json"
    if not path.is_file():
        raise DataError(f"--compare: {folder} holds no marks.json; expected the --out folder of a finished sweep")
    marks: dict[str, Any] = read_json(path, "--compare's")
    try:
        complete = _checked(marks)
    except DataError as error:
        raise DataError(f"--compare: {path} is not what a sweep writes ({error}); run the sweep again") from error
    if not complete:
        raise DataError(f"--compare: {path} holds no runs, or runs with marks missing; run the sweep again")
    return marks


def _checked(marks: object) -> bool:
    """Return whether there are runs with a mark for every question. Raises ``DataError`` for other contents."""
    sets = required_field(marks, "sets", dict, "the file")
    sizes = {}
    for name, own in sets.items():
        where = f"the set {name!r}"
        required_field(own, "title", str, where)
        required_field(own, "fingerprint", str, where)
        sizes[name] = len(list_of(required_field(own, "kinds", list, where), str, f"{where}: 'kinds'"))
    runs = objects_of(required_field(marks, "runs", list, "the file"), "'runs'")
    complete = bool(runs and sets)
    for number, run in enumerate(runs, 1):
        where = f"run {number}"
        for field, kind in (("model", str), ("planner", str), ("budget", float)):
            required_field(run, field, kind, where)
        right = required_field(run, "right", dict, where)
        lengths = {name: len(typed(text, str, f"{where}: 'right' of {name!r}")) for name, text in right.items()}
        complete = complete and lengths == sizes
    return complete


def _same_questions(one: dict[str, Any], other: dict[str, Any], folders: tuple[Path, Path]) -> list[str]:
    """Return the names of the sets that both sweeps asked."""
    both = [name for name in one["sets"] if name in other["sets"]]
    changed = [name for name in both if one["sets"][name]["fingerprint"] != other["sets"][name]["fingerprint"]]
    if changed or not both:
        what = f"in {', '.join(changed)} their questions differ" if changed else "they share no set of questions"
        raise DataError(
            f"--compare: {folders[0]} and {folders[1]} cannot be paired: {what}; sweep both with the same --suite-data "
            "or --question-file"
        )
    return both


def _matched(
    one: dict[str, Any], other: dict[str, Any], folders: tuple[Path, Path]
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Pair runs of the same model, planner, image tokens and budget; where each sweep has one model, any label goes."""
    single = all(len({run["model"] for run in marks["runs"]}) == 1 for marks in (one, other))

    def key(run: dict[str, Any]) -> tuple[str, str, str, float]:
        return ("" if single else run["model"], run["planner"], run.get("image_tokens") or "", run["budget"])

    others = {key(run): run for run in other["runs"]}
    found = [(run, others[key(run)]) for run in one["runs"] if key(run) in others]
    if not found:
        names = [", ".join(sorted({run["model"] for run in marks["runs"]})) for marks in (one, other)]
        raise OptionError(
            f"--compare: {folders[0]} ({names[0]}) and {folders[1]} ({names[1]}) have no model, planner and budget in "
            "common; give the models the same labels, as LABEL=DIR"
        )
    return found


def _pairs(names: list[str], sets: dict[str, Any], a: dict[str, Any], b: dict[str, Any]) -> Iterator[Pair]:
    for name in names:
        kinds = sets[name]["kinds"]
        for kind in (None, *dict.fromkeys(kinds)):
            mine, theirs = (
                [mark == "1" for mark, own in zip(run["right"][name], kinds, strict=True) if kind in (None, own)]
                for run in (a, b)
            )
            yield Pair(
                (a["model"], b["model"]),
                a["planner"],
                a.get("image_tokens") or "",
                a["budget"],
                sets[name]["title"],
                kind or "all",
                Accuracy(sum(mine), len(mine)),
                Accuracy(sum(theirs), len(theirs)),
                Difference.of(theirs, mine),
            )


def _adjusted(pairs: list[Pair]) -> list[Pair]:
    p_values = holm([pair.change.p_value for pair in pairs])
    return [replace(pair, p_holm=p) for pair, p in zip(pairs, p_values, strict=True)]


def to_markdown(pairs: list[Pair], folders: tuple[Path, Path]) -> str:
    """Make a table for each model, planner and budget."""
    groups: dict[tuple[Any, ...], list[Pair]] = {}
    for pair in pairs:
        groups.setdefault((pair.models, pair.planner, pair.image_tokens, pair.budget), []).append(pair)
    parts = [
        f"A is {folders[0]}, B is {folders[1]}. B - A in points with its 95 % interval, on the same questions; p by "
        "McNemar's exact test, in brackets adjusted for the number of lines of its table (Holm)."
    ]
    for (models, planner, tokens, budget), own in groups.items():
        name = models[0] if models[0] == models[1] else f"{models[0]} and {models[1]}"
        lines = [["questions", "kind", "number", "A, %", "B, %", "B - A", "only A right", "only B right", "p"]]
        lines += [_line(pair) for pair in own]
        name = ", ".join(part for part in (name, planner, tokens) if part)
        parts.append(f"{name}, budget {budget:g}\n\n{lines_of(lines)}")
    return "\n\n".join(parts) + "\n"


def _line(pair: Pair) -> list[str]:
    change = pair.change
    counts = [str(change.losses), str(change.gains)]
    shares = [percent(pair.a.share), percent(pair.b.share)]
    p = f"{_p(change.p_value)} ({_p(pair.p_holm)})"
    return [pair.title, pair.kind, str(change.total), *shares, signed(change), *counts, p]


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _write(folder: Path, pairs: list[Pair], markdown: str) -> None:
    lines = [pair.cells() for pair in pairs]
    atomic_write(folder / "compare.csv", csv_text(lines))
    atomic_write(folder / "compare.json", json.dumps(lines, indent=1) + "\n")
    atomic_write(folder / "compare.md", markdown)
