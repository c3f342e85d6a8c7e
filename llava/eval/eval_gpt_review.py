r"""Reviews answers to questions without images: a judge model compares two answers to each question.

    OPENAI_BASE_URL=http://localhost:8000/v1 python -m llava.eval.eval_gpt_review --question questions.jsonl \
        --answer-list ANSWERS_1.jsonl ANSWERS_2.jsonl --output REVIEWS.jsonl

A category without a rule is judged by the rule ``default``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.eval.scoring.llm_judge import Judge
from llava.eval.scoring.reviews import RULES, SYSTEM, Kind, ReviewTask, make_parser, parse_score, review
from llava.eval.scoring.reviews import review_tasks as tasks_of
from llava.files.fields import id_field
from llava.files.jsonl import Record
from llava.program import run_program

__all__ = ["NUM_SECONDS_TO_SLEEP", "get_eval", "main", "parse_score", "review_tasks"]

NUM_SECONDS_TO_SLEEP = 3  # before a request that the server refused for now is sent again
MODEL = "gpt-4"


def get_eval(content: str, max_tokens: int) -> str:
    """Return the judge's review of a prompt. Raises ``LlavaError`` where the server gives none."""
    return Judge(MODEL, max_tokens, NUM_SECONDS_TO_SLEEP).ask(SYSTEM, content)


def review_tasks(questions: Path, answers: Sequence[Path], rule: Path = RULES) -> list[ReviewTask]:
    """Make a task of each question from the files that the flags of the same names take.

    Raises ``DataError`` for files that do not match.
    """
    return tasks_of(questions, answers, rule, Kind(_answer_id, default_rule="default"))


def _answer_id(answer: Record, where: str) -> Any:
    return id_field(answer, "answer_id", where)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    args = make_parser("eval_gpt_review", __doc__, model=MODEL).parse_args(arguments)

    def work() -> None:
        tasks = review_tasks(args.question, args.answer_list, args.rule)
        review(tasks, args.output, args.model, lambda: Judge(args.model, args.max_tokens, NUM_SECONDS_TO_SLEEP))

    return run_program(work)


if __name__ == "__main__":
    raise SystemExit(main())
