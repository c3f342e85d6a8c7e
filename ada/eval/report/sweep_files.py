"""Writes a finished sweep's files for other programs: ``sweep.json``, ``sweep.csv``, ``plans.json``, ``marks.json``.

``sweep.json`` and ``sweep.csv`` hold the figures, ``plans.json`` how often each switch ran, and ``marks.json`` every
answer's mark, for comparisons.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ada.eval.questions.question_set import QuestionSet
from ada.eval.report.markdown import constant_share
from ada.eval.stats.accuracy import Accuracy, Difference, best_constants
from ada.eval.stats.falloff import FallOff
from ada.eval.stats.plan_counts import Frequency
from ada.eval.stats.results import Row
from llava.files.atomic_write import atomic_write


def write_json(path: Path, about: dict[str, Any], rows: Sequence[Row], falls: Iterable[FallOff]) -> None:
    """Write everything that was measured; shares are in [0, 1]. about: fields that come first."""
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
        "image_tokens": str(row.run.tokens) or None,
        "budget": row.run.budget.fraction,
        "times": row.latency and row.latency.to_json(),
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
    """Write how often each head and neuron group of every layer ran, by run, set and kind of question."""
    content = [
        {
            "model": row.run.label,
            "planner": row.run.planner,
            "image_tokens": str(row.run.tokens) or None,
            "budget": row.run.budget.fraction,
            "ran": {name: {kind: _layers(ran) for kind, ran in part.plans.items()} for name, part in row.parts.items()},
        }
        for row in rows
    ]
    atomic_write(path, "[\n" + ",\n".join(json.dumps(run) for run in content) + "\n]\n")


def _layers(ran: Frequency) -> list[dict[str, list[float]]]:
    return [{"heads": heads, "neuron_groups": groups} for heads, groups in ran.round(4).tolist()]


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    """Write a line for each run, set and kind of question; the kind "all" is all of a set's questions."""
    lines = []
    for row in rows:
        for name, part in row.parts.items():
            lines.append(_line(row, name, "all", part.accuracy, row.leads[name]))
            lines += [_line(row, name, kind, accuracy, None) for kind, accuracy in part.kinds.items()]
    atomic_write(path, csv_text(lines))


def csv_text(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return ``lines`` as CSV with a heading; all have the same columns, and None is an empty cell."""
    buffer = io.StringIO(newline="")
    table = csv.DictWriter(buffer, list(lines[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(lines)
    return buffer.getvalue()


def _line(row: Row, name: str, kind: str, accuracy: Accuracy, lead: Difference | None) -> dict[str, Any]:
    low, high = accuracy.interval
    part, latency = row.parts[name], row.latency
    return {
        "kind_of_unit": row.family,
        "model": row.run.label,
        "planner": row.run.planner,
        "image_tokens": str(row.run.tokens) or None,
        "budget": row.run.budget.fraction,
        "set": name,
        "kind": kind,
        "correct": accuracy.correct,
        "total": accuracy.total,
        "accuracy": accuracy.share,
        "low": low,
        "high": high,
        "lead": lead and lead.share,
        "lead_reach": lead and lead.reach,
        "lead_p": lead and lead.p_value,
        "executed_share": part.share,
        "prefill_gflops": part.prefill_gflops,
        "first_token_ms": latency and latency.ttft_p50_ms,
        "first_token_again_ms": latency and latency.warm_ttft_p50_ms,
        "token_ms": latency and latency.inter_token_p50_ms,
    }


def write_marks(path: Path, rows: Sequence[Row]) -> None:
    """Write by run and set a 1 for every right answer and a 0 for every wrong one, in the questions' order."""
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
            "image_tokens": str(row.run.tokens) or None,
            "budget": row.run.budget.fraction,
            "right": {name: "".join("01"[hit] for hit in part.right) for name, part in row.parts.items()},
        }
        for row in rows
    ]
    atomic_write(path, json.dumps({"sets": sets, "runs": runs}) + "\n")
