r"""Scores MM-Vet: a judge model grades each answer from 0.0 to 1.0 against the true one; means by capability.

    OPENAI_BASE_URL=http://localhost:8000/v1 python -m llava.eval.eval_mmvet --questions mm-vet.json \
        --results RESULTS.json --output GRADES.jsonl

``--results`` is what scripts/convert_mmvet_for_eval.py writes. The judge's instructions are this project's.
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
    """Return a reply's mark in [0, 1]; None where the reply has none."""
    try:
        mark = float(reply.split()[0])
    except (IndexError, ValueError):
        return None
    return mark if 0 <= mark <= 1 else None


def mmvet_scores(questions: Mapping[str, Any], grades: Sequence[Record]) -> dict[str, Any]:
    """Return ``questions`` (their number), and ``total`` and ``by_capability``, mean marks in percent.

    Raises ``DataError`` where grades and questions do not have the same ids.
    """
    marks = {grade["question_id"]: grade["mark"] for grade in grades}
    check_same(marks, questions, "the grades")
    marks_of: defaultdict[str, list[float]] = defaultdict(list)
    for key, question in questions.items():
        for capability in question["capability"]:
            marks_of[capability].append(marks[key])
    return {
        "questions": len(marks),
        "total": 100 * mean(list(marks.values()), "questions"),
        "by_capability": {name: 100 * mean(own, "questions") for name, own in sorted(marks_of.items())},
    }


def grade(question_file: Path, result_file: Path, output: Path, model: str = DEFAULT_MODEL) -> dict[str, Any]:
    """Let the judge ``model`` grade the answers that ``output`` has no grade for; return the scores.

    Raises ``DataError`` for files that do not match, ``OptionError`` for an output of other answers.
    """
    questions, results = read_json(question_file, "--questions"), read_json(result_file, "--results")
    if not questions or not isinstance(results, dict):
        raise DataError(f"{question_file} holds no questions, or {result_file} no answers by question")
    check_same(results, questions, f"--results {result_file}")
    file = RecordFile(output)
    if any(results.get(record["question_id"]) != record["prediction"] for record in file.records):
        raise OptionError(f"{output} holds grades of other answers; remove it, or choose another --output")
    graded = {record["question_id"] for record in file.records}
    waiting = [key for key in questions if key not in graded]
    judge = Judge(model) if waiting else None
    for key in tqdm(waiting, desc=output.stem, unit=" grades"):
        if judge is not None:
            _, mark = judge.mark(SYSTEM, _prompt(questions[key], results[key]), read_mark)
            file.append([{"question_id": key, "prediction": results[key], "mark": mark}])
    file.finish(file.records)
    return mmvet_scores(questions, file.records)


def _prompt(question: Mapping[str, str], prediction: str) -> str:
    return f"Question: {question['question']}\nTrue answer: {question['answer']}\nModel's answer: {prediction}\nMark:"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m llava.eval.eval_mmvet",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--questions", type=Path, required=True, help="MM-Vet's questions, mm-vet.json")
    parser.add_argument(
        "--results",
        type=Path,
        required=True,
        help="JSON file of answers by question, as scripts/convert_mmvet_for_eval.py writes it",
    )
    parser.add_argument(
        "--output", type=Path, required=True, help="file to write the grades to, one JSON object a line"
    )
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help="name of the judge model at the server (default: %(default)s)"
    )
    args = parser.parse_args(arguments)
    return run_program(lambda: print(json.dumps(grade(args.questions, args.results, args.output, args.model))))


if __name__ == "__main__":
    raise SystemExit(main())
