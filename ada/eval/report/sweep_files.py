"""What a finished sweep leaves for other programs: figures in ``sweep.json`` and ``sweep.csv``, how often what ran in
``plans.json``, and every answer's mark in ``marks.json``, for comparisons."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ada.eval.questions.question_set import QuestionSet
from ada.eval.report.markdown import constant_share
from ada.eval.stats.accuracy import Accuracy, Difference, best_constants
from ada.eval.stats.falloff import FallOff
from ada.eval.stats.results import Row
from llava.files.atomic_write import atomic_write

COLUMNS = (
    "kind_of_unit model planner budget set kind correct total accuracy low high lead lead_reach lead_p executed_share "
    "prefill_gflops first_token_ms first_token_again_ms token_ms"
).split()


def write_json(path: Path, about: dict[str, Any], rows: Sequence[Row], falls: Iterable[FallOff]) -> None:
    """Everything that was measured; shares are in [0, 1]."""
    content = {
        **about,
        "sets": {part.questions.name: _set(part.questions) for part in rows[0].parts.values()},
        "falls": [fall.sentence for fall in falls],
        "rows": [_row(row) for row in rows],
    }
    atomic_write(path, json.dumps(content, indent=1) + "\n")


def _set(questions: QuestionSet) -> dict[str, Any]:
    constants = best_constants(questions.items)
    return {
        "title": questions.title,
        "questions": len(questions.items),
        "fingerprint": questions.fingerprint,
        "best_constant": {kind: {"answer": a, **accuracy.to_json()} for kind, (a, accuracy) in constants.items()},
        "best_constant_accuracy": constant_share(questions),
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "kind_of_unit": row.family,
        "model": row.run.label,
        "planner": row.run.planner,
        "budget": row.run.budget.fraction,
        "times": row.times and row.times.to_json(),
        "sets": {
            name: {
                "executed_share": part.share,
                "prefill_gflops": part.prefill_gflops,
                **part.accuracy.to_json(),
                "lead": row.leads[name].to_json(),
                "figures": part.figures,
                "kinds": {kind: accuracy.to_json() for kind, accuracy in part.kinds.items()},
            }
            for name, part in row.parts.items()
        },
    }


def write_plans(path: Path, rows: Iterable[Row]) -> None:
    """How often what ran: by run, set and kind of question, for every layer its heads and its neuron groups."""
    content = [
        {
            "model": row.run.label,
            "planner": row.run.planner,
            "budget": row.run.budget.fraction,
            "ran": {name: {kind: _layers(o) for kind, o in part.plans.items()} for name, part in row.parts.items()},
        }
        for row in rows
    ]
    atomic_write(path, "[\n" + ",\n".join(json.dumps(run) for run in content) + "\n]\n")


def _layers(often: Any) -> list[dict[str, list[float]]]:
    """Frequencies (layers, 2, switches)."""
    names = ("heads", "neuron_groups")
    return [dict(zip(names, layer, strict=True)) for layer in often.round(4).tolist()]


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    """A line a run, set and kind of question; "all" are a set's questions together."""
    buffer = io.StringIO(newline="")
    table = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    table.writeheader()
    for row in rows:
        for name, part in row.parts.items():
            table.writerow(_line(row, name, "all", part.accuracy, row.leads[name]))
            for kind, accuracy in part.kinds.items():
                table.writerow(_line(row, name, kind, accuracy, None))
    atomic_write(path, buffer.getvalue())


def _line(row: Row, name: str, kind: str, accuracy: Accuracy, lead: Difference | None) -> dict[str, Any]:
    low, high = accuracy.interval
    part, times = row.parts[name], row.times
    values = (
        *(row.family, row.run.label, row.run.planner, row.run.budget.fraction, name, kind),
        *(accuracy.correct, accuracy.total, accuracy.share, low, high),
        *((lead.share, lead.reach, lead.p_value) if lead else ("", "", "")),
        *(part.share, part.prefill_gflops),
        *((times.first, times.again, times.token) if times else ("", "", "")),
    )
    return dict(zip(COLUMNS, values, strict=True))


def write_marks(path: Path, rows: Sequence[Row]) -> None:
    """By run and set, a 1 for every right answer and a 0 for every wrong one, in the questions' order."""
    sets = {
        name: {
            "title": part.questions.title,
            "fingerprint": part.questions.fingerprint,
            "kinds": [item.kind for item in part.questions.items],
        }
        for name, part in rows[0].parts.items()
    }
    runs = [
        {
            "model": row.run.label,
            "planner": row.run.planner,
            "budget": row.run.budget.fraction,
            "right": {name: "".join("01"[hit] for hit in part.right) for name, part in row.parts.items()},
        }
        for row in rows
    ]
    atomic_write(path, json.dumps({"sets": sets, "runs": runs}) + "\n")
