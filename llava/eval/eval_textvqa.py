"""Scores TextVQA (text in images) against ten people's answers.

python -m llava.eval.eval_textvqa --annotation-file TextVQA_0.5.1_val.json --result-file FILE
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.errors import DataError, OptionError
from llava.eval.m4c_evaluator import TextVQAAccuracyEvaluator
from llava.eval.scoring.matching import text_of
from llava.files.fields import id_field, list_of, objects_of, required_field
from llava.files.jsonl import Record, read_json, read_records
from llava.program import run_program

Key = tuple[str, str]  # image, question

_OCR_MARK, _OLD_MARK = "Reference OCR token: ", "OCR tokens: "


def prompt_processor(prompt: str) -> str:
    """Return the question in a prompt, in lower case. Raises ``DataError`` for a prompt of another form."""
    lines = prompt.split("\n")
    if prompt.startswith(_OLD_MARK):
        _, mark, rest = prompt.partition("Question: ")
        question, end, _ = rest.partition(" Short answer:")
        if mark and end:
            return question.lower()
    elif _OCR_MARK in prompt and len(lines) == 3:
        return (lines[1] if prompt.startswith(_OCR_MARK) else lines[0]).lower()
    elif len(lines) == 2:
        return lines[0].lower()
    raise DataError(f"no TextVQA prompt: {prompt!r}; expected the question, then a line with the request")


def predictions(annotations: Sequence[Record], results: Sequence[Record]) -> list[dict[str, Any]]:
    """Return ``pred_answer`` and ``gt_answers`` of every result, matched by image and question.

    Raises ``DataError`` unless every annotation has a result, and every result an annotation that no other result has.
    """
    people: dict[Key, list[str]] = {}
    left: Counter[Key] = Counter()  # annotations that no result has answered yet
    for number, annotation in enumerate(objects_of(annotations, "the annotations"), 1):
        where = f"the annotations, question {number}"
        key = (str(id_field(annotation, "image_id", where)), required_field(annotation, "question", str, where).lower())
        people[key] = list_of(required_field(annotation, "answers", list, where), str, f"{where}: 'answers'")
        left[key] += 1
    found = []
    for number, result in enumerate(results, 1):
        where = f"the results, answer {number}"
        question = prompt_processor(required_field(result, "prompt", str, where))
        key = (str(id_field(result, "question_id", where)), question)
        if key not in people:
            raise DataError(f"image {key[0]!r} has no question {question!r} in the annotations; is it another set?")
        if not left[key]:
            raise DataError(f"{where}: image {key[0]!r} and question {question!r} twice; is it two runs in one file?")
        left[key] -= 1
        found.append({"pred_answer": text_of(result, "the results"), "gt_answers": people[key]})
    if missing := sorted(key for key, count in left.items() if count):
        raise DataError(f"{left.total()} of {len(annotations)} questions have no answer, {missing[0]} among them")
    return found


def eval_single(annotation_file: str | Path, result_file: str | Path) -> dict[str, Any]:
    """Score one answer file, and print its name and scores: ``samples`` (their number) and ``accuracy`` in percent."""
    fields = read_json(Path(annotation_file), "--annotation-file")
    annotations = fields.get("data") if isinstance(fields, dict) else None
    if not annotations:
        raise DataError(f"--annotation-file {annotation_file} holds no questions under 'data'")
    results = read_records(Path(result_file), "--result-file")
    try:
        found = predictions(annotations, results)
    except DataError as error:
        raise DataError(f"{annotation_file} and {result_file}: {error}") from error
    scores = {"samples": len(found), "accuracy": 100.0 * TextVQAAccuracyEvaluator().eval_pred_list(found)}
    print(f"{Path(result_file).stem}\nSamples: {scores['samples']}\nAccuracy: {scores['accuracy']:.2f}%\n")
    return scores


def get_args() -> argparse.Namespace:
    """Parse the command line."""
    return make_parser().parse_args()


def make_parser() -> argparse.ArgumentParser:
    """Make the program's parser."""
    parser = argparse.ArgumentParser(
        prog="python -m llava.eval.eval_textvqa",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--annotation-file", type=Path, required=True, help="TextVQA's JSON file of questions and people's answers"
    )
    parser.add_argument("--result-file", type=Path, help="answer file of llava.eval.model_vqa_loader")
    parser.add_argument(
        "--result-dir", type=Path, help="folder of answer files (*.jsonl) to score one by one, after --result-file"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    args = make_parser().parse_args(arguments)

    def show() -> None:
        files = [args.result_file] if args.result_file else []
        of_folder = sorted(args.result_dir.glob("*.jsonl")) if args.result_dir else []
        if not files + of_folder or (args.result_dir and not of_folder):
            raise OptionError("name an answer file with --result-file, or with --result-dir a folder that holds some")
        for file in files + of_folder:
            eval_single(args.annotation_file, file)

    return run_program(show)


if __name__ == "__main__":
    raise SystemExit(main())
