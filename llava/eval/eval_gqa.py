"""GQA with known answers: exact matches, in all and by the question's structure.

    python -m llava.eval.eval_gqa --questions testdev_balanced_questions.json --predictions FILE

``FILE`` is what scripts/convert_gqa_for_eval.py writes. GQA's own ``eval.py`` gives the same accuracy, and more.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.errors import DataError
from llava.eval.scoring.matching import by_id, check_same
from llava.files.jsonl import read_json
from llava.program import run_program


def gqa_scores(questions: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """``accuracy``, and ``by_structure`` ("verify", "query", ...), in percent, and ``questions``.

    Raises ``DataError`` where predictions and questions are not of the same ids.
    """
    given = by_id(map(dict, predictions), "questionId", "the predictions")
    check_same(given, questions, "the predictions")
    if not questions:
        raise DataError("there are no questions")
    kinds: defaultdict[str, list[bool]] = defaultdict(list)
    for key, question in questions.items():
        kind = question.get("types", {}).get("structural", "unknown")
        kinds[kind].append(given[key]["prediction"] == question["answer"])
    return {
        "questions": len(questions),
        "accuracy": 100 * sum(map(sum, kinds.values())) / len(questions),
        "by_structure": {kind: 100 * sum(hits) / len(hits) for kind, hits in sorted(kinds.items())},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(
        prog="python -m llava.eval.eval_gqa", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--questions", type=Path, required=True, help="GQA's questions, with their answers")
    parser.add_argument("--predictions", type=Path, required=True, help="the predictions")
    args = parser.parse_args(arguments)

    def show() -> None:
        questions = read_json(args.questions, "--questions")
        print(json.dumps(gqa_scores(questions, read_json(args.predictions, "--predictions"))))

    return run_program(show)


if __name__ == "__main__":
    raise SystemExit(main())
