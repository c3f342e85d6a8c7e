r"""Scores ScienceQA where GPT-4 was asked again with our answer and its own, as a judge of both.

    python -m llava.eval.eval_science_qa_gpt4_requery --base-dir DIR --gpt4-result GPT4.json \
        --requery-result REQUERY.jsonl --our-result ANSWERS.jsonl --output-result SCORES.json

``--requery-result`` is an answer file of the problems that were asked again; elsewhere, and where it names no letter,
our answer counts.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.errors import DataError
from llava.eval.eval_science_qa import FAILED, LETTERS, convert_caps
from llava.eval.scoring.matching import by_id, share, text_of
from llava.eval.scoring.stated_answers import ProblemAnswers, get_pred_idx, make_parser, read_answers, stated
from llava.files.atomic_write import atomic_write
from llava.files.fields import shown
from llava.files.jsonl import Record, read_records
from llava.program import run_program

__all__ = ["convert_caps", "get_args", "get_pred_idx", "main", "requery_scores"]

PROGRAM = "eval_science_qa_gpt4_requery"
MISSING = "MISSING"  # the text of what was not asked again
TITLES = {
    "our_correct": "Our-Correct",
    "gpt4_correct": "GPT-4-Correct",
    "gpt4_failed": "GPT-4 NO-ANS (RANDOM)",
    "gpt4_ourvisual_correct": "GPT-4-OursVisual-Correct",
    "requery_correct": "Requery-Correct",
    "correct_upperbound": "Correct upper",
}


def get_args() -> argparse.Namespace:
    """Parse the command line."""
    return _parser().parse_args()


def requery_scores(
    problems: Sequence[ProblemAnswers], requeries: Mapping[str, Record], options: Sequence[str] = LETTERS
) -> dict[str, Any]:
    """Return ``counts`` by the names of ``TITLES``, ``results`` (problem -> chosen index), and ``wrong``.

    ``wrong``: texts that describe the problems whose requery chose a wrong answer.
    """
    counts = dict.fromkeys(TITLES, 0)
    results: dict[str, int] = {}
    wrong = []
    for problem in problems:
        again = text_of(requeries[problem.key], "--requery-result") if problem.key in requeries else MISSING
        texts = {"Our": problem.ours["text"], "GPT-4": problem.gpt4, "Requery": again}
        letters = [stated(text) for text in texts.values()]
        chosen = [get_pred_idx(letter, problem.choices, options) for letter in letters]
        our, gpt4, requery = (index == problem.truth for index in chosen)
        results[problem.key] = chosen[0] if letters[2] == FAILED else chosen[2]
        counts["our_correct"] += our
        counts["gpt4_correct"] += gpt4
        counts["gpt4_failed"] += letters[1] == FAILED
        counts["gpt4_ourvisual_correct"] += our if letters[1] == FAILED else gpt4
        counts["requery_correct"] += our if letters[2] == FAILED else requery
        counts["correct_upperbound"] += our or gpt4
        if letters[2] != FAILED and not requery:
            said = [f"{name} ({letter}): {texts[name]}" for name, letter in zip(texts, letters, strict=True)]
            question = f"Question ({options[problem.truth]}): {problem.ours['prompt']}"
            wrong.append("\n".join([question, *said]))
    return {"counts": counts, "results": results, "wrong": wrong}


def report(counts: Mapping[str, int], total: int) -> str:
    """Format the lines that upstream prints."""
    lines = []
    for name, title in TITLES.items():
        figure = "Percentage" if name == "gpt4_failed" else "Accuracy"
        percent = share(counts[name], total, "there are no problems") * 100
        lines.append(f"Total: {total}, {title}: {counts[name]}, {figure}: {percent:.2f}%")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(PROGRAM, __doc__)
    parser.add_argument("--requery-result", type=Path, required=True, help="answer file of the problems asked again")
    parser.add_argument("--output-result", type=Path, required=True, help="JSON file to write the scores to")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    args = _parser().parse_args(arguments)

    def show() -> None:
        random.seed(args.seed)
        problems = read_answers(args.base_dir, args.split, args.our_result, args.gpt4_result, args.options)
        where = f"--requery-result {args.requery_result}"
        requeries = by_id(read_records(args.requery_result, "--requery-result"), "question_id", where)
        if unknown := sorted(set(requeries) - {problem.key for problem in problems}):
            raise DataError(f"{where} answers {shown(unknown[0])}, which is no problem of --split {args.split}")
        scores = requery_scores(problems, requeries, args.options)
        counts, total = scores["counts"], len(problems)
        summary = report(counts, total)
        correct = counts["requery_correct"]
        kept = {"acc": correct / total * 100, "correct": correct, "count": total, "results": scores["results"]}
        atomic_write(args.output_result, json.dumps({**kept, "outputs": {}}, indent=2) + "\n")
        for text in scores["wrong"]:
            print(f"{text}\n=====================================")
        print(summary)

    return run_program(show)


if __name__ == "__main__":
    raise SystemExit(main())
