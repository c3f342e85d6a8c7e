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
from llava.eval.scoring.llm_judge import DEFAULT_MODEL, Judge, check_judged, judged_by
from llava.eval.scoring.matching import by_id, check_same, mean
from llava.files.fields import list_of, required_field, typed
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
    given = by_id(grades, "question_id", "the grades")
    check_same(given, questions, "the grades")
    marks = {key: required_field(given[key], "mark", float, f"the grade of {key}") for key in questions}
    marks_of: defaultdict[str, list[float]] = defaultdict(list)
    for key, question in questions.items():
        where = f"question {key}"
        capabilities = list_of(required_field(question, "capability", list, where), str, f"{where}: 'capability'")
        for capability in capabilities:
            marks_of[capability].append(marks[key])
    return {
        "questions": len(marks),
        "total": 100 * mean(list(marks.values()), "questions"),
        "by_capability": {name: 100 * mean(own, "questions") for name, own in sorted(marks_of.items())},
    }


def grade(question_file: Path, result_file: Path, output: Path, model: str = DEFAULT_MODEL) -> dict[str, Any]:
    """Let the judge ``model`` grade the answers that ``output`` has no grade for; return the scores.

    Raises ``DataError`` for files that do not match, ``OptionError`` for an output of other answers, of another judge,
    or of other prompts.
    """
    questions: Record = typed(read_json(question_file, "--questions"), dict, f"--questions {question_file}")
    results: Record = typed(read_json(result_file, "--results"), dict, f"--results {result_file}")
    if not questions:
        raise DataError(f"--questions {question_file} holds no questions")
    check_same(results, questions, f"--results {result_file}")
    prompts = {key: _prompt(key, question, results[key]) for key, question in questions.items()}
    file = RecordFile(output)
    graded = by_id(file.records, "question_id", str(output))
    if any(results.get(key) != grade.get("prediction") for key, grade in graded.items()):
        raise OptionError(f"{output} holds grades of other answers; remove it, or choose another --output")
    how = {key: judged_by(model, SYSTEM, prompt) for key, prompt in prompts.items()}
    for key, record in graded.items():
        check_judged(record, how[key], output)
    waiting = [key for key in questions if key not in graded]
    if waiting and file.complete:
        raise OptionError(f"{output} lacks the grades of {len(waiting)} answers; remove it, or choose another --output")
    mmvet_scores(questions, [{"question_id": key, "mark": 0} for key in questions])  # refuses bad questions before
    judge = Judge(model) if waiting else None
    for key in tqdm(waiting, desc=output.stem, unit=" grades"):
        if judge is not None:
            _, mark = judge.mark(SYSTEM, prompts[key], read_mark)
            file.append([{"question_id": key, "prediction": results[key], "mark": mark, **how[key]}])
    file.finish(file.records)
    return mmvet_scores(questions, file.records)


def _prompt(key: str, question: object, prediction: object) -> str:
    asked, truth = (required_field(question, name, str, f"question {key}") for name in ("question", "answer"))
    said = typed(prediction, str, f"the answer to {key}")
    return f"Question: {asked}\nTrue answer: {truth}\nModel's answer: {said}\nMark:"


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
