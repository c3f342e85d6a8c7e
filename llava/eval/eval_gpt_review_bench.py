r"""Reviews LLaVA-Bench: a judge model compares two answers to each question, given a description of the image.

    OPENAI_BASE_URL=http://localhost:8000/v1 python -m llava.eval.eval_gpt_review_bench --question questions.jsonl \
        --context context.jsonl --answer-list answers_gpt4.jsonl ANSWERS.jsonl --output REVIEWS.jsonl

The default rules are this project's; marks are comparable only where the rules and the judge are the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from llava.errors import DataError, OptionError
from llava.eval.scoring.llm_judge import DEFAULT_MODEL, Judge
from llava.eval.scoring.matching import by_id, check_same, text_of
from llava.files.jsonl import Record, RecordFile, read_json, read_records
from llava.program import run_program

RULES = Path(__file__).parent / "table" / "rule.json"
SYSTEM = "You are a careful and fair judge of answers."
CATEGORY = "llava_bench_"


def read_marks(reply: str) -> list[float] | None:
    """Return the two marks of a reply's first line; None where it does not have two."""
    cells = reply.strip().partition("\n")[0].replace(",", " ").split()
    try:
        marks = [float(cell) for cell in cells]
    except ValueError:
        return None
    return marks if len(marks) == 2 else None


def review_prompt(context: str, question: str, answers: Sequence[str], rule: dict[str, str]) -> str:
    """Make the judge's prompt: context, question, the answers by number, the rule."""
    parts = [f"[Context]\n{context}", f"[Question]\n{question}"]
    for number, answer in enumerate(answers, 1):
        parts.append(f"[{rule['role']} {number}]\n{answer}\n\n[End of {rule['role']} {number}]")
    return "\n\n".join([*parts, f"[System]\n{rule['prompt']}"]) + "\n\n"


@dataclass(frozen=True)
class ReviewTask:
    """One question to review: the review's fields apart from the judge's reply, and the judge's prompt."""

    fields: dict[str, Any]
    prompt: str


def review_tasks(questions: Path, contexts: Path, answers: Sequence[Path], rule: Path = RULES) -> list[ReviewTask]:
    """Make a task of each question from the files that the flags of the same names take.

    Raises ``DataError`` for files that do not match.
    """
    asked = by_id(read_records(questions, "--question"), "question_id", str(questions))
    captions = {record["image"]: record["caption"] for record in read_records(contexts, "--context")}
    sides = [by_id(read_records(path, "--answer-list"), "question_id", str(path)) for path in answers]
    for path, side in zip(answers, sides, strict=True):
        check_same(side, asked, str(path))
    rules = read_json(rule, "--rule")
    return [
        _task(number, question, captions, [side[key] for side in sides], rules)
        for number, (key, question) in enumerate(asked.items(), 1)
    ]


def _task(
    number: int,
    question: Record,
    captions: Mapping[str, str | list[str]],
    answers: Sequence[Record],
    rules: Mapping[str, dict[str, str]],
) -> ReviewTask:
    category = CATEGORY + question["category"]
    if category not in rules or question["image"] not in captions:
        raise DataError(
            f"question {question['question_id']}: there is no rule for {category!r}, or no context for "
            f"{question['image']!r}"
        )
    caption = captions[question["image"]]
    context = "\n".join(caption) if isinstance(caption, list) else caption
    texts = [text_of(answer, "--answer-list") for answer in answers]
    fields = {
        "id": number,
        "question_id": question["question_id"],
        **{f"answer{n}_id": a.get("answer_id", a["question_id"]) for n, a in enumerate(answers, 1)},
        "category": category,
    }
    return ReviewTask(fields, review_prompt(context, question["text"], texts, rules[category]))


def review(tasks: Sequence[ReviewTask], output: Path, model: str = DEFAULT_MODEL, max_tokens: int = 1024) -> None:
    """Let the judge ``model`` review the tasks that ``output`` has no review of.

    max_tokens: of a review. Raises ``OptionError`` for an output of other answers.
    """
    file = RecordFile(output)
    mismatched = [r for r, task in zip(file.records, tasks, strict=False) if _fields(r) != task.fields]
    if mismatched or len(file.records) > len(tasks):
        raise OptionError(f"{output} holds reviews of other answers; remove it, or choose another --output")
    waiting = tasks[len(file.records) :]
    judge = Judge(model, max_tokens) if waiting else None
    for task in tqdm(waiting, desc=output.stem, unit=" reviews"):
        if judge is not None:
            reply, marks = judge.mark(SYSTEM, task.prompt, read_marks)
            file.append([{**task.fields, "content": reply, "tuple": marks}])
    file.finish(file.records)


def _fields(review: Record) -> Record:
    return {name: value for name, value in review.items() if name not in ("content", "tuple")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m llava.eval.eval_gpt_review_bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-q", "--question", type=Path, required=True, help="LLaVA-Bench's questions, JSON lines")
    parser.add_argument("-c", "--context", type=Path, required=True, help="descriptions of the images, JSON lines")
    parser.add_argument(
        "-a", "--answer-list", type=Path, nargs=2, required=True, help="answer files of the reference and of the model"
    )
    parser.add_argument(
        "-r",
        "--rule",
        type=Path,
        default=RULES,
        help="JSON file of the judge's rules by category (default: this project's)",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to write the reviews to, JSON lines")
    parser.add_argument("--max-tokens", type=int, default=1024, help="longest review, in tokens")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name of the judge model (default: %(default)s)")
    args = parser.parse_args(arguments)

    def work() -> None:
        tasks = review_tasks(args.question, args.context, args.answer_list, args.rule)
        review(tasks, args.output, args.model, args.max_tokens)

    return run_program(work)


if __name__ == "__main__":
    raise SystemExit(main())
