"""Scores VQAv2 and VizWiz with known answers: accuracy over ten people's answers, as for TextVQA.

    python -m llava.eval.eval_vqa --annotation-file FILE --result-file FILE

``--result-file`` is what the conversion scripts write for submission: ``question_id`` and ``answer`` (VQAv2), or
``image`` and ``answer`` (VizWiz).
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.errors import DataError
from llava.eval.m4c_evaluator import TextVQAAccuracyEvaluator
from llava.eval.scoring.matching import by_id, check_same, mean
from llava.files.fields import objects_of, optional_field, required_field
from llava.files.jsonl import Record, read_json
from llava.program import run_program


def vqa_scores(annotations: Sequence[Record], results: Sequence[Record], key: str) -> dict[str, Any]:
    """Return ``questions`` (their number), ``accuracy``, and ``by_type`` of answer, in percent.

    key: the field that is the id of annotations and results. Raises ``DataError`` where these do not have the same
    ids; empty answers to other questions, with which VQAv2's submissions are filled up, are ignored.
    """
    asked, given = by_id(annotations, key, "the annotations"), by_id(results, key, "the results")
    said = {name: required_field(result, "answer", str, f"the result of {name}") for name, result in given.items()}
    said = {name: answer for name, answer in said.items() if name in asked or answer}
    check_same(said, asked, "the results")
    evaluator = TextVQAAccuracyEvaluator()
    scores_of: defaultdict[str, list[float]] = defaultdict(list)
    for name, question in asked.items():
        where = f"the annotation of {name}"
        answers = objects_of(required_field(question, "answers", list, where), f"{where}: 'answers'")
        people = [required_field(answer, "answer", str, f"{where}: an answer") for answer in answers]
        kind = optional_field(question, "answer_type", str, where) or "other"
        scores_of[kind] += evaluator.scores([{"pred_answer": said[name], "gt_answers": people}])
    scores = [score for own in scores_of.values() for score in own]
    return {
        "questions": len(scores),
        "accuracy": 100 * mean(scores, "questions"),
        "by_type": {name: 100 * mean(own, "questions") for name, own in sorted(scores_of.items())},
    }


def score(annotation_file: Path, result_file: Path) -> dict[str, Any]:
    """Score a submission: to VQAv2 where the annotations are under "annotations", else to VizWiz."""
    fields = read_json(annotation_file, "--annotation-file")
    results = read_json(result_file, "--result-file")
    try:
        if isinstance(fields, dict):
            return vqa_scores(required_field(fields, "annotations", list, "the file"), results, "question_id")
        return vqa_scores(fields, results, "image")
    except DataError as error:
        raise DataError(f"{annotation_file} and {result_file}: {error}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m llava.eval.eval_vqa", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--annotation-file", type=Path, required=True, help="JSON file of ten people's answers to each question"
    )
    parser.add_argument(
        "--result-file",
        type=Path,
        required=True,
        help="JSON file of answers, as scripts/convert_{vqav2,vizwiz}_for_submission.py write it",
    )
    args = parser.parse_args(arguments)
    return run_program(lambda: print(json.dumps(score(args.annotation_file, args.result_file))))


if __name__ == "__main__":
    raise SystemExit(main())
