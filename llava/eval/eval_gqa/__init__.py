"""Scores GQA with known answers: exact matches, over all questions and by the question's structure.

    python -m llava.eval.eval_gqa --questions testdev_balanced_questions.json --predictions FILE

``FILE`` is what scripts/convert_gqa_for_eval.py writes. GQA's ``eval.py`` gives the same accuracy, and more metrics.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.errors import DataError
from llava.eval.scoring.matching import by_id, check_same, percent_by
from llava.files.fields import optional_field, required_field, typed
from llava.files.jsonl import Record, read_json
from llava.program import run_program


def gqa_scores(questions: Mapping[str, Any], predictions: Sequence[Record]) -> dict[str, Any]:
    """Return ``questions`` (their number), ``accuracy`` and ``by_structure`` ("verify", "query", ...) in percent.

    Raises ``DataError`` where predictions and questions do not have the same ids, or one lacks a field.
    """
    given = by_id(predictions, "questionId", "the predictions")
    check_same(given, typed(questions, dict, "the questions"), "the predictions")
    if not questions:
        raise DataError("there are no questions")
    hits: defaultdict[str, list[bool]] = defaultdict(list)
    for key, question in questions.items():
        where = f"question {key}"
        types = optional_field(question, "types", dict, where)
        structure = (optional_field(types, "structural", str, f"{where}: 'types'") if types else None) or "unknown"
        prediction = required_field(given[key], "prediction", str, f"the prediction of {where}")
        hits[structure].append(prediction == required_field(question, "answer", str, where))
    return {
        "questions": len(questions),
        "accuracy": 100 * sum(map(sum, hits.values())) / len(questions),
        "by_structure": percent_by(hits),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m llava.eval.eval_gqa", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--questions", type=Path, required=True, help="GQA's JSON file of questions, with their answers"
    )
    parser.add_argument(
        "--predictions",
        type=Path,
        required=True,
        help="JSON file of predictions, as scripts/convert_gqa_for_eval.py writes it",
    )
    args = parser.parse_args(arguments)

    def show() -> None:
        questions = read_json(args.questions, "--questions")
        print(json.dumps(gqa_scores(questions, read_json(args.predictions, "--predictions"))))

    return run_program(show)
