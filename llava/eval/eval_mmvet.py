"""MM-Vet: a judge gives each answer a mark from 0.0 to 1.0 against the true one; means by capability.

    OPENAI_BASE_URL=http://localhost:8000/v1 python -m llava.eval.eval_mmvet --questions mm-vet.json \\
        --results RESULTS.json --output GRADES.jsonl

``--results`` is what scripts/convert_mmvet_for_eval.py writes. The judge's instructions are this project's own words.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from llava.errors import DataError, OptionError
from llava.eval.scoring.llm_judge import DEFAULT_MODEL, Judge
from llava.eval.scoring.matching import check_same, mean
from llava.files.jsonl import Record, RecordFile, read_json
from llava.program import run_program

SYSTEM = (
    "You mark a model's answer to a question about a picture that you cannot see. Compare it with the true answer. "
    "<AND> between parts of the true answer means that all of them must be there; <OR> means that one of them is "
    "enough. Reply with one number from 0.0 (all wrong) to 1.0 (all right), with one digit behind the point, and "
    "nothing else."
)


def read_mark(reply: str) -> float | None:
    """A reply's mark in [0, 1]; None where it is none."""
    try:
        mark = float(reply.split()[0])
    except (IndexError, ValueError):
        return None
    return mark if 0 <= mark <= 1 else None


def mmvet_scores(questions: Mapping[str, Any], grades: Sequence[Record]) -> dict[str, Any]:
    """``total`` and ``by_capability``, mean marks in percent. Raises ``DataError`` for unequal sets."""
    marks = {grade["question_id"]: grade["mark"] for grade in grades}
    check_same(marks, questions, "the grades")
    kinds: defaultdict[str, list[float]] = defaultdict(list)
    for key, question in questions.items():
        for capability in question["capability"]:
            kinds[capability].append(marks[key])
    return {
        "questions": len(marks),
        "total": 100 * mean(list(marks.values()), "questions"),
        "by_capability": {name: 100 * mean(own, "questions") for name, own in sorted(kinds.items())},
    }


def grade(args: argparse.Namespace) -> dict[str, Any]:
    """Judge what is not judged yet, and give the scores."""
    questions, results = read_json(args.questions, "--questions"), read_json(args.results, "--results")
    if not questions or not isinstance(results, dict):
        raise DataError(f"{args.questions} holds no questions, or {args.results} no answers by question")
    check_same(results, questions, f"--results {args.results}")
    file = RecordFile(args.output)
    if any(results.get(record["question_id"]) != record["prediction"] for record in file.records):
        raise OptionError(f"{args.output} holds grades of other answers; remove it, or choose another --output")
    graded = {record["question_id"] for record in file.records}
    waiting = [key for key in questions if key not in graded]
    judge = Judge(args.model) if waiting else None
    for key in tqdm(waiting, desc=args.output.stem, unit=" grades"):
        if judge is not None:
            _, mark = judge.mark(SYSTEM, _prompt(questions[key], results[key]), read_mark)
            file.append([{"question_id": key, "prediction": results[key], "mark": mark}])
    file.finish(file.records)
    return mmvet_scores(questions, file.records)


def _prompt(question: Mapping[str, str], prediction: str) -> str:
    return f"Question: {question['question']}\nTrue answer: {question['answer']}\nModel's answer: {prediction}\nMark:"


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(
        prog="python -m llava.eval.eval_mmvet",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--questions", type=Path, required=True, help="mm-vet.json")
    parser.add_argument("--results", type=Path, required=True, help="the answers, by question")
    parser.add_argument("--output", type=Path, required=True, help="where the grades go")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="the judge")
    args = parser.parse_args(arguments)
    return run_program(lambda: print(json.dumps(grade(args))))


if __name__ == "__main__":
    raise SystemExit(main())
