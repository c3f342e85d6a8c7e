r"""Scores ScienceQA answered by GPT-4, with our answer wherever GPT-4 gives none.

    python -m llava.eval.eval_science_qa_gpt4 --base-dir DIR --gpt4-result GPT4.json --our-result ANSWERS.jsonl

Problems that lack one of both answers are left out. An answer without a letter, where no other replaces it, is a guess,
drawn with ``--seed``.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence

from llava.eval.eval_science_qa import FAILED, LETTERS, convert_caps
from llava.eval.scoring.matching import share
from llava.eval.scoring.stated_answers import ProblemAnswers, get_pred_idx, make_parser, read_answers, stated
from llava.program import run_program

__all__ = ["convert_caps", "ensemble_scores", "get_args", "get_pred_idx", "main"]

PROGRAM = "eval_science_qa_gpt4"


def get_args() -> argparse.Namespace:
    """Parse the command line."""
    return make_parser(PROGRAM, __doc__).parse_args()


def ensemble_scores(problems: Sequence[ProblemAnswers], options: Sequence[str] = LETTERS) -> dict[str, int]:
    """Count the problems: ``total``, ``correct``, ``correct_upperbound`` and ``gpt4_failed``.

    ``correct_upperbound``: where GPT-4's answer or ours is right. ``gpt4_failed``: where GPT-4's names no letter.
    """
    counts = {"total": len(problems), "correct": 0, "correct_upperbound": 0, "gpt4_failed": 0}
    for problem in problems:
        letters = stated(problem.ours["text"]), stated(problem.gpt4)
        ours, gpt4 = (get_pred_idx(letter, problem.choices, options) for letter in letters)
        if letters[1] == FAILED:
            counts["gpt4_failed"] += 1
            gpt4 = ours
        counts["correct"] += gpt4 == problem.truth
        counts["correct_upperbound"] += problem.truth in (gpt4, ours)
    return counts


def report(counts: dict[str, int]) -> str:
    """Format the lines that upstream prints."""
    total = counts["total"]
    names = {"correct": "Correct", "correct_upperbound": "Correct (upper)", "gpt4_failed": "GPT-4 NO-ANS (RANDOM)"}
    lines = []
    for name, title in names.items():
        figure = "Percentage" if name == "gpt4_failed" else "Accuracy"
        percent = share(counts[name], total, "there are no problems") * 100
        lines.append(f"Total: {total}, {title}: {counts[name]}, {figure}: {percent:.2f}%")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    args = make_parser(PROGRAM, __doc__).parse_args(arguments)

    def show() -> None:
        random.seed(args.seed)
        files = args.base_dir, args.split, args.our_result, args.gpt4_result
        problems = read_answers(*files, args.options, partial=True)
        print(report(ensemble_scores(problems, args.options)))

    return run_program(show)


if __name__ == "__main__":
    raise SystemExit(main())
