"""Scores ScienceQA: multiple choice, with and without an image.

python -m llava.eval.eval_science_qa --base-dir DIR --result-file FILE --output-file FILE --output-result FILE
"""

from __future__ import annotations

import argparse
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.errors import DataError
from llava.eval.scoring.matching import by_id, share, text_of
from llava.files.atomic_write import atomic_write
from llava.files.fields import id_field, required_field, shown, typed, typed_id
from llava.files.jsonl import Record, read_json, read_records
from llava.program import run_program

log = logging.getLogger(__name__)

LETTERS = ["A", "B", "C", "D", "E"]
FAILED = "FAILED"
STATED = re.compile(r"The answer is ([A-Z]).")


def convert_caps(results: Iterable[Record]) -> list[dict[str, Any]]:
    """Convert answers into COCO's captions: ``image_id``, an integer, and ``caption``."""
    captions = []
    for number, result in enumerate(results, 1):
        key = id_field(result, "question_id", f"answer {number}")
        if not str(key).isdecimal():
            raise DataError(f"answer {number}: 'question_id' is {shown(key)}; expected an integer")
        captions.append({"image_id": int(key), "caption": text_of(result, "the results")})
    return captions


def get_pred_idx(prediction: str, choices: Sequence[Any], options: Sequence[str]) -> int:
    """Return the index of the choice that a letter names; -1 for what names none of them."""
    letters = list(options[: len(choices)])
    return letters.index(prediction) if prediction in letters else -1


def parse_answer(text: str, options: Sequence[str] = LETTERS) -> str:
    """Return an answer's letter, or ``FAILED``.

    It is a letter alone, one before ". ", or the X of "The answer is X." where that is there exactly once.
    """
    if text in options:
        return text
    if len(text) >= 3 and text[0] in options and text[1:3] == ". ":
        return text[0]
    stated = STATED.findall(text)
    return stated[0] if len(stated) == 1 else FAILED


def science_scores(
    problems: Mapping[str, Any], answers: Mapping[str, Record], options: Sequence[str] = LETTERS
) -> dict[str, Any]:
    """Return ``acc`` and ``image_acc`` in percent, ``correct``, ``count``, and three tables of the answers.

    ``image_acc`` is None where no problem has an image. ``results`` and ``outputs`` are by problem; ``analysis`` lists
    the right and the wrong answers. A problem without an answer counts as wrong, as upstream. Raises ``DataError`` for
    answers to unknown problems.
    """
    unknown = [key for key in answers if key not in problems]
    if unknown:
        raise DataError(f"{len(unknown)} answers are to problems that are not in this split, the first is {unknown[0]}")
    missing = len(problems) - len(answers)
    if missing:
        log.warning("%d of %d problems have no answer; they count as wrong", missing, len(problems))
    rows = [_scored(key, problem, answers.get(key), options) for key, problem in problems.items()]
    right, wrong = ([row for row in rows if row["right"] is side] for side in (True, False))
    with_image = [row for row in rows if row["is_multimodal"]]
    hits = sum(row["right"] for row in with_image)
    return {
        "acc": share(len(right), len(rows), "there are no problems") * 100,
        "correct": len(right),
        "count": len(rows),
        "image_acc": hits / len(with_image) * 100 if with_image else None,
        "results": {row["question_id"]: row["index"] for row in rows},
        "outputs": {row["question_id"]: row["pred"] for row in rows},
        "analysis": {"correct": [_shown(row) for row in right], "incorrect": [_shown(row) for row in wrong]},
    }


def _scored(key: str, problem: Mapping[str, Any], answer: Record | None, options: Sequence[str]) -> dict[str, Any]:
    choices, truth = choices_of(key, problem, options)
    answer = answer or {"text": FAILED, "prompt": "Unknown"}
    text = text_of(answer, "the result file")
    prompt = required_field(answer, "prompt", str, f"the result file: the answer to {key}")
    letter = parse_answer(text, options)
    index = get_pred_idx(letter, choices, options)
    return {
        "question_id": key,
        "parsed_ans": letter,
        "ground_truth": options[truth],
        "question": prompt,
        "pred": text,
        "is_multimodal": DEFAULT_IMAGE_TOKEN in prompt,
        "index": index,
        "right": index == truth,
    }


def choices_of(key: str, problem: object, options: Sequence[str]) -> tuple[list[Any], int]:
    """Return a problem's choices and the right one's index. Raises ``DataError`` where it has none of the options."""
    where = f"problem {key}"
    choices = required_field(problem, "choices", list, where)
    truth = required_field(problem, "answer", int, where)
    if not 0 <= truth < min(len(choices), len(options)):
        raise DataError(f"{where}: 'answer' is {truth}; expected the index of one of its {len(choices)} choices")
    return choices, truth


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in ("index", "right")}


def summary(scores: Mapping[str, Any]) -> str:
    """Format the line that upstream prints."""
    images = "none asked" if scores["image_acc"] is None else f"{scores['image_acc']:.2f}%"
    return (
        f"Total: {scores['count']}, Correct: {scores['correct']}, Accuracy: {scores['acc']:.2f}%, "
        f"IMG-Accuracy: {images}"
    )


def score(base_dir: Path, result_file: Path, split: str = "test", options: Sequence[str] = LETTERS) -> dict[str, Any]:
    """Score a result file on one split of the problems in ``base_dir``. Raises ``DataError`` for unusable files."""
    problems = read_problems(base_dir, split)
    answers = by_id(read_records(result_file, "--result-file"), "question_id", f"--result-file {result_file}")
    try:
        return science_scores(problems, answers, options)
    except DataError as error:
        raise DataError(f"{base_dir} and {result_file}: {error}") from error


def read_problems(base_dir: Path, split: str) -> dict[str, Any]:
    """Read the problems of one split by id. Raises ``DataError`` for a split that is not there, or lacks problems."""
    path = base_dir / "pid_splits.json"
    splits = typed(read_json(path, "--base-dir's"), dict, f"--base-dir's {path}")
    problems = typed(read_json(base_dir / "problems.json", "--base-dir's"), dict, f"{base_dir / 'problems.json'}")
    if not splits.get(split):
        raise DataError(f"--split is {split!r}; {path} has {', '.join(splits)}")
    keys = [
        str(typed_id(key, f"{path}: an id of {split!r}")) for key in typed(splits[split], list, f"{path}: {split!r}")
    ]
    if missing := [key for key in keys if key not in problems]:
        raise DataError(f"{base_dir / 'problems.json'} lacks {len(missing)} problems of {split!r}, as {missing[0]!r}")
    return {key: problems[key] for key in keys}


def get_args() -> argparse.Namespace:
    """Parse the command line."""
    return make_parser().parse_args()


def make_parser() -> argparse.ArgumentParser:
    """Make the program's parser."""
    parser = argparse.ArgumentParser(
        prog="python -m llava.eval.eval_science_qa",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--base-dir", type=Path, required=True, help="folder of problems.json and pid_splits.json")
    parser.add_argument("--result-file", type=Path, required=True, help="answer file of llava.eval.model_vqa_science")
    parser.add_argument("--output-file", type=Path, required=True, help="JSON file to list right and wrong answers in")
    parser.add_argument("--output-result", type=Path, required=True, help="JSON file to write the scores to")
    parser.add_argument("--split", default="test", help="split of the problems that were asked (default: %(default)s)")
    parser.add_argument(
        "--options", nargs="+", default=LETTERS, help="letters of the choices, in order (default: A B C D E)"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    args = make_parser().parse_args(arguments)

    def show() -> None:
        scores = score(args.base_dir, args.result_file, args.split, args.options)
        kept = {name: scores[name] for name in ("acc", "correct", "count", "results", "outputs")}
        atomic_write(args.output_file, json.dumps(scores["analysis"], indent=2) + "\n")
        atomic_write(args.output_result, json.dumps(kept, indent=2) + "\n")
        print(summary(scores))

    return run_program(show)


if __name__ == "__main__":
    raise SystemExit(main())
