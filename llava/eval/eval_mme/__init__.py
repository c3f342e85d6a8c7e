"""Scores MME: two yes/no questions an image, for perception and cognition.

    python -m llava.eval.eval_mme --results_dir answers/llava-v1.5-7b

reads what scripts/convert_answer_to_mme.py writes: a CATEGORY.txt of lines ``image, question, truth, answer``.
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

Line = tuple[str, str, str, str]  # image, question, truth, answer


def parse_pred_ans(text: str) -> str:
    """Return an answer as MME reads it, by its first four letters: "yes", "no" or "other"."""
    start = text.lower()[:4]
    return next((answer for answer in TRUTHS if answer in start), "other")


def category_scores(lines: Sequence[Line], name: str) -> dict[str, Any]:
    """Return one category's ``acc``, ``acc_plus`` and ``score`` in percent, and counts.

    ``acc`` is of questions, ``acc_plus`` of images whose two questions are both right, ``score`` their sum. Raises
    ``DataError`` for an image without exactly two questions, and for truths other than yes and no.
    """
    by_image: defaultdict[str, list[bool]] = defaultdict(list)
    for image, _, truth, answer in lines:
        if truth.lower() not in TRUTHS:
            raise DataError(f"{name}: the truth of a question on {image!r} is {truth!r}; expected yes or no")
        by_image[image].append(parse_pred_ans(answer) == truth.lower())
    odd = [image for image, hits in by_image.items() if len(hits) != 2]
    if odd or not lines:
        what = f"{odd[0]!r} has {len(by_image[odd[0]])} questions" if odd else "there are no answers"
        raise DataError(f"{name}: {what}; MME asks two about each image")
    hits = [hit for pair in by_image.values() for hit in pair]
    acc = 100 * sum(hits) / len(hits)
    acc_plus = 100 * sum(all(pair) for pair in by_image.values()) / len(by_image)
    other = sum(parse_pred_ans(answer) == "other" for *_, answer in lines)
    return {
        "acc": acc,
        "acc_plus": acc_plus,
        "score": acc + acc_plus,
        "questions": len(hits),
        "pictures": len(by_image),
        "other": other,
    }


def mme_scores(categories: Mapping[str, Sequence[Line]]) -> dict[str, dict[str, Any]]:
    """Return ``total`` and ``categories`` of ``Perception`` and ``Cognition``, where there are answers.

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
    """Read every CATEGORY.txt of a folder. Raises ``DataError`` where there is none."""
    files = sorted(folder.glob("*.txt"))
    if not files:
        raise DataError(f"--results_dir {folder} holds no CATEGORY.txt of scripts/convert_answer_to_mme.py")
    return {file.stem: _lines(file) for file in files}


def _lines(file: Path) -> list[Line]:
    lines = []
    for number, line in enumerate(read_text(file, "--results_dir's").splitlines(), 1):
        cells = line.split("\t")
        if len(cells) != 4:
            raise DataError(f"{file}, line {number} has {len(cells)} cells; expected image, question, truth, answer")
        lines.append((cells[0], cells[1], cells[2], cells[3]))
    return lines


def report(scores: Mapping[str, Any]) -> str:
    """Format the scores as text."""
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
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m llava.eval.eval_mme", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--results_dir",
        type=Path,
        required=True,
        help="folder of CATEGORY.txt, as scripts/convert_answer_to_mme.py writes it",
    )
    parser.add_argument("--json", action="store_true", help="print the scores as JSON")
    args = parser.parse_args(arguments)

    def show() -> None:
        scores = mme_scores(read_results(args.results_dir))
        print(json.dumps(scores) if args.json else report(scores))

    return run_program(show)
