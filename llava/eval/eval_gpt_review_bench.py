r"""Reviews LLaVA-Bench: a judge model compares two answers to each question, given a description of the image.

    OPENAI_BASE_URL=http://localhost:8000/v1 python -m llava.eval.eval_gpt_review_bench --question questions.jsonl \
        --context context.jsonl --answer-list answers_gpt4.jsonl ANSWERS.jsonl --output REVIEWS.jsonl

The default rules are this project's; marks are comparable only where the rules and the judge are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llava.errors import DataError
from llava.eval.scoring.llm_judge import Judge
from llava.eval.scoring.matching import by_id
from llava.eval.scoring.reviews import (
    RULES,
    SYSTEM,
    Kind,
    ReviewTask,
    answer_or_question_id,
    make_parser,
    parse_score,
    review,
)
from llava.eval.scoring.reviews import review_tasks as tasks_of
from llava.files.fields import list_of, raw_field, required_field, shown, typed
from llava.files.jsonl import Record, read_records
from llava.program import run_program

__all__ = ["NUM_SECONDS_TO_SLEEP", "get_eval", "main", "parse_score", "review_tasks"]

NUM_SECONDS_TO_SLEEP = 0.5  # before a request that the server refused for now is sent again
CATEGORY = "llava_bench_"


def get_eval(content: str, max_tokens: int) -> str:
    """Return the judge's review of a prompt. Raises ``LlavaError`` where the server gives none."""
    return Judge(max_tokens=max_tokens, pause_s=NUM_SECONDS_TO_SLEEP).ask(SYSTEM, content)


def review_tasks(questions: Path, contexts: Path, answers: Sequence[Path], rule: Path = RULES) -> list[ReviewTask]:
    """Make a task of each question from the files that the flags of the same names take.

    Raises ``DataError`` for files that do not match.
    """
    captions = by_id(read_records(contexts, "--context"), "image", f"--context {contexts}")

    def context(question: Record, where: str) -> str:
        image = required_field(question, "image", str, where)
        if image not in captions:
            raise DataError(f"{where}: there is no context for {shown(image)}")
        about = f"--context {contexts}: {image!r}: 'caption'"
        caption = raw_field(captions[image], "caption", about)
        return "\n".join(list_of(caption, str, about)) if isinstance(caption, list) else typed(caption, str, about)

    return tasks_of(questions, answers, rule, Kind(answer_or_question_id, context, prefix=CATEGORY))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    parser = make_parser("eval_gpt_review_bench", __doc__, context="descriptions of the images, JSON lines")
    args = parser.parse_args(arguments)

    def work() -> None:
        tasks = review_tasks(args.question, args.context, args.answer_list, args.rule)
        review(tasks, args.output, args.model, lambda: Judge(args.model, args.max_tokens, NUM_SECONDS_TO_SLEEP))

    return run_program(work)


if __name__ == "__main__":
    raise SystemExit(main())
