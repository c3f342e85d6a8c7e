"""Summarizes LLaVA-Bench's reviews: the model's marks in percent of the reference's, by category.

python -m llava.eval.summarize_gpt_review -f REVIEWS.jsonl
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.errors import DataError, OptionError
from llava.eval.scoring.matching import by_id, mean
from llava.eval.scoring.reviews import marks_of
from llava.files.fields import required_field, shown
from llava.files.jsonl import Record, read_records
from llava.program import run_program

DIGITS = 3  # that mean marks are rounded to, as in published figures


def review_scores(reviews: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Return ``relative`` (percent), ``reference`` and ``model`` (mean marks of 100) of ``all`` and each category.

    Raises ``DataError`` where there are no reviews, or two of one question.
    """
    by_id([review for review in reviews if review.get("question_id") is not None], "question_id", "the reviews")
    if not reviews:
        raise DataError("there are no reviews left to summarize; --ignore names all of them")
    marks: defaultdict[str, list[Sequence[float]]] = defaultdict(list)
    for review in reviews:
        where = f"the review of question {shown(review.get('question_id'))}"
        pair = marks_of(review, where)
        if "category" in review:
            marks[required_field(review, "category", str, where)].append(pair)
        marks["all"].append(pair)
    return {name: _figures(name, pairs) for name, pairs in sorted(marks.items())}


def _figures(name: str, pairs: Sequence[Sequence[float]]) -> dict[str, Any]:
    reference, model = (round(mean([pair[side] for pair in pairs], "reviews"), DIGITS) for side in (0, 1))
    if not reference:
        raise DataError(f"{name}: the reference's marks are all 0; nothing can be compared with them")
    return {"relative": 100 * model / reference, "reference": 10 * reference, "model": 10 * model}


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    return make_parser().parse_args()


def make_parser() -> argparse.ArgumentParser:
    """Make the program's parser."""
    parser = argparse.ArgumentParser(
        prog="python -m llava.eval.summarize_gpt_review",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-d", "--dir", type=Path, help="folder of the --files; alone: all *.jsonl of it are summarized")
    parser.add_argument("-f", "--files", type=Path, nargs="*", default=[], help="review files to summarize")
    parser.add_argument("-i", "--ignore", nargs="*", default=[], help="question ids whose reviews are left out")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    args = make_parser().parse_args(arguments)

    def show() -> None:
        folder = args.dir or Path()
        files = [folder / file for file in args.files] if args.files or not args.dir else sorted(folder.glob("*.jsonl"))
        if not files:
            raise OptionError("there are no reviews; name some with --files, or their folder with --dir")
        for file in sorted(files):
            reviews = [r for r in read_records(file, "--files") if str(r.get("question_id")) not in args.ignore]
            print(file.stem.replace("gpt4_text_", ""))
            for name, own in review_scores(reviews).items():
                print(name, *(f"{own[figure]:.1f}" for figure in ("relative", "reference", "model")))
            print("=================================")

    return run_program(show)


if __name__ == "__main__":
    raise SystemExit(main())
