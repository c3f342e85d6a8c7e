"""MME: yes or no, two questions a picture; perception and cognition.

    python -m llava.eval.eval_mme --results_dir answers/llava-v1.5-7b

reads what scripts/convert_answer_to_mme.py writes: a CATEGORY.txt of lines ``picture, question, truth, answer``.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.errors import DataError
from llava.files.jsonl import read_text
from llava.program import run_program

CATEGORIES = {
    "Perception": "existence count position color posters celebrity scene landmark artwork OCR".split(),
    "Cognition": "commonsense_reasoning numerical_calculation text_translation code_reasoning".split(),
}
TRUTHS = ("yes", "no")

Line = tuple[str, str, str, str]  # picture, question, truth, answer


def parse_pred_ans(text: str) -> str:
    """An answer as MME reads it, by its first four letters: "yes", "no" or "other"."""
    start = text.lower()[:4]
    return next((answer for answer in TRUTHS if answer in start), "other")


def category_scores(lines: Sequence[Line], name: str) -> dict[str, Any]:
    """``acc`` (questions), ``acc_plus`` (pictures whose two questions are both right) and ``score`` (their sum), in
    percent, and counts. Raises ``DataError`` for a picture without exactly two questions, and for other truths."""
    by_picture: defaultdict[str, list[bool]] = defaultdict(list)
    for picture, _, truth, answer in lines:
        if truth.lower() not in TRUTHS:
            raise DataError(f"{name}: the truth of a question on {picture!r} is {truth!r}; expected yes or no")
        by_picture[picture].append(parse_pred_ans(answer) == truth.lower())
    odd = [picture for picture, hits in by_picture.items() if len(hits) != 2]
    if odd or not lines:
        what = f"{odd[0]!r} has {len(by_picture[odd[0]])} questions" if odd else "there are no answers"
        raise DataError(f"{name}: {what}; MME asks two about each picture")
    hits = [hit for pair in by_picture.values() for hit in pair]
    acc = 100 * sum(hits) / len(hits)
    acc_plus = 100 * sum(all(pair) for pair in by_picture.values()) / len(by_picture)
    other = sum(parse_pred_ans(answer) == "other" for *_, answer in lines)
    return {
        "acc": acc,
        "acc_plus": acc_plus,
        "score": acc + acc_plus,
        "questions": len(hits),
        "pictures": len(by_picture),
        "other": other,
    }


def mme_scores(categories: Mapping[str, Sequence[Line]]) -> dict[str, dict[str, Any]]:
    """``Perception`` and ``Cognition``, those of which there are answers: ``total`` and ``categories``.

    Raises ``DataError`` for a category that MME does not have.
    """
    known = {name for names in CATEGORIES.values() for name in names}
    strange = sorted(set(categories) - known)
    if strange or not categories:
        raise DataError(f"categories are {strange or 'none'}; expected some of {', '.join(sorted(known))}")
    scores = {}
    for side, names in CATEGORIES.items():
        own = {name: category_scores(categories[name], name) for name in names if name in categories}
        if own:
            scores[side] = {"total": sum(figures["score"] for figures in own.values()), "categories": own}
    return scores


def read_results(folder: Path) -> dict[str, list[Line]]:
    """Every CATEGORY.txt of a folder."""
    files = sorted(folder.glob("*.txt"))
    if not files:
        raise DataError(f"--results_dir {folder} holds no CATEGORY.txt of scripts/convert_answer_to_mme.py")
    return {file.stem: _lines(file) for file in files}


def _lines(file: Path) -> list[Line]:
    lines = []
    for number, line in enumerate(read_text(file, "--results_dir's").splitlines(), 1):
        cells = line.split("\t")
        if len(cells) != 4:
            raise DataError(f"{file}, line {number} has {len(cells)} cells; expected picture, question, truth, answer")
        lines.append((cells[0], cells[1], cells[2], cells[3]))
    return lines


def report(scores: Mapping[str, Any]) -> str:
    """The figures for people."""
    lines = []
    for side, figures in scores.items():
        lines.append(f"=========== {side} ===========\ntotal score: {figures['total']:.2f}\n")
        for name, own in figures["categories"].items():
            lines.append(
                f"\t {name}  score: {own['score']:.2f} (acc {own['acc']:.2f}, acc+ {own['acc_plus']:.2f}, "
                f"{own['questions']} questions, {own['other']} answered neither yes nor no)"
            )
        lines.append("")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(
        prog="python -m llava.eval.eval_mme", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results_dir", type=Path, required=True, help="folder of CATEGORY.txt")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(arguments)

    def show() -> None:
        scores = mme_scores(read_results(args.results_dir))
        print(json.dumps(scores) if args.json else report(scores))

    return run_program(show)


if __name__ == "__main__":
    raise SystemExit(main())
