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
from llava.eval.scoring.matching import mean
from llava.files.jsonl import Record, read_records
from llava.program import run_program


def review_scores(reviews: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Return ``relative`` (percent), ``reference`` and ``model`` (mean marks of 100) of ``all`` and each category."""
    marks: defaultdict[str, list[Sequence[float]]] = defaultdict(list)
    for review in reviews:
        pair = review.get("tuple")
        if not isinstance(pair, list) or len(pair) != 2 or min(pair) < 0:
            raise DataError(f"the review of question {review.get('question_id')!r} has marks {pair!r}; expected two")
        for name in ("all", review.get("category", "none")):
            marks[name].append(pair)
    return {name: _figures(name, pairs) for name, pairs in sorted(marks.items())}


def _figures(name: str, pairs: Sequence[Sequence[float]]) -> dict[str, Any]:
    reference, model = (mean([pair[side] for pair in pairs], "reviews") for side in (0, 1))
    if not reference:
        raise DataError(f"{name}: the reference's marks are all 0; nothing can be compared with them")
    return {"relative": 100 * model / reference, "reference": 10 * reference, "model": 10 * model}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m llava.eval.summarize_gpt_review",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-d", "--dir", type=Path, help="folder of review files (*.jsonl) to summarize")
    parser.add_argument("-f", "--files", type=Path, nargs="*", default=[], help="review files to summarize")
    parser.add_argument("-i", "--ignore", nargs="*", default=[], help="parts of file names to leave out")
    args = parser.parse_args(arguments)

    def show() -> None:
        found = [*args.files, *(sorted(args.dir.glob("*.jsonl")) if args.dir else [])]
        files = [file for file in found if not any(part in file.name for part in args.ignore)]
        if not files:
            raise OptionError("there are no reviews; name some with --files, or their folder with --dir")
        for file in files:
            print(file.stem)
            for name, own in review_scores(read_records(file, "--files")).items():
                print(name, *(f"{own[figure]:.1f}" for figure in ("relative", "reference", "model")))
            print("=================================")

    return run_program(show)


if __name__ == "__main__":
    raise SystemExit(main())
