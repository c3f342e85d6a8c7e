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

BEGINNINGS = ("gpt4_text", "reviews_", "review_")  # of the names of review files
OLDER, NEWER = "0314", "0613"  # of GPT-4, which wrote the reviews
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
    alone = "alone: its gpt4_text*, reviews_* and review_* are summarized, or all *.jsonl where its path holds 'review'"
    parser.add_argument("-d", "--dir", type=Path, help=f"folder of the --files; {alone}")
    version = "summarize reviews by this GPT-4 alone: 0613 where a file's name holds that, 0314 elsewhere"
    parser.add_argument("-v", "--version", choices=[OLDER, NEWER], help=version)
    select = "summarize only files whose name holds each of these words"
    parser.add_argument("-s", "--select", nargs="*", default=[], metavar="WORD", help=select)
    parser.add_argument("-f", "--files", type=Path, nargs="*", default=[], help="review files to summarize")
    parser.add_argument("-i", "--ignore", nargs="*", default=[], help="question ids whose reviews are left out")
    return parser


def review_files(args: argparse.Namespace) -> list[Path]:
    """Return the files that the flags choose, in order. Raises OptionError where there are none."""
    folder: Path = args.dir or Path()
    if args.files or not args.dir:
        files = [folder / file for file in args.files]
    else:
        every = "review" in str(folder)
        files = [file for file in folder.glob("*.jsonl") if every or file.name.startswith(BEGINNINGS)]
    if not files:
        raise OptionError("there are no reviews; name some with --files, or their folder with --dir")
    chosen = [
        file
        for file in files
        if all(word in _title(file) for word in args.select) and args.version in (None, _version(file))
    ]
    if not chosen:
        raise OptionError(f"--select and --version leave out all of {len(files)} files, as {files[0].name}")
    return sorted(chosen)


def _title(file: Path) -> str:
    return file.stem.replace("gpt4_text_", "")


def _version(file: Path) -> str:
    return NEWER if NEWER in _title(file) else OLDER


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    args = make_parser().parse_args(arguments)

    def show() -> None:
        for file in review_files(args):
            reviews = [r for r in read_records(file, "--files") if str(r.get("question_id")) not in args.ignore]
            print(_title(file))
            for name, own in review_scores(reviews).items():
                print(name, *(f"{own[figure]:.1f}" for figure in ("relative", "reference", "model")))
            print("=================================")

    return run_program(show)


if __name__ == "__main__":
    raise SystemExit(main())
