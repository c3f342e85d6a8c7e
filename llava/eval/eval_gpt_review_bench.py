"""LLaVA-Bench: a judge compares two answers to each question, with the picture's description as context.

    OPENAI_BASE_URL=http://localhost:8000/v1 python -m llava.eval.eval_gpt_review_bench --question questions.jsonl \\
        --context context.jsonl --answer-list answers_gpt4.jsonl ANSWERS.jsonl --output REVIEWS.jsonl

The default rules are this project's own words; figures compare only where the rules and the judge are the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
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
    """The two marks of a reply's first line; None where it does not hold two."""
    cells = reply.strip().partition("\n")[0].replace(",", " ").split()
    try:
        marks = [float(cell) for cell in cells]
    except ValueError:
        return None
    return marks if len(marks) == 2 else None


def review_prompt(context: str, question: str, answers: Sequence[str], rule: dict[str, str]) -> str:
    """What the judge is asked: context, question, the answers by number, the rule."""
    parts = [f"[Context]\n{context}", f"[Question]\n{question}"]
    for number, answer in enumerate(answers, 1):
        parts.append(f"[{rule['role']} {number}]\n{answer}\n\n[End of {rule['role']} {number}]")
    return "\n\n".join([*parts, f"[System]\n{rule['prompt']}"]) + "\n\n"


def tasks(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One a question: the review's fields and the judge's prompt. Raises ``DataError`` for files that do not match."""
    questions = by_id(read_records(args.question, "--question"), "question_id", str(args.question))
    contexts = {record["image"]: record["caption"] for record in read_records(args.context, "--context")}
    sides = [by_id(read_records(path, "--answer-list"), "question_id", str(path)) for path in args.answer_list]
    for path, side in zip(args.answer_list, sides, strict=True):
        check_same(side, questions, str(path))
    rules = read_json(args.rule, "--rule")
    return [
        _task(number, question, contexts, [side[key] for side in sides], rules)
        for number, (key, question) in enumerate(questions.items(), 1)
    ]


def _task(number: int, question: Record, contexts: dict, answers: Sequence[Record], rules: dict) -> dict[str, Any]:
    category = CATEGORY + question["category"]
    if category not in rules or question["image"] not in contexts:
        raise DataError(
            f"question {question['question_id']}: there is no rule for {category!r}, or no context for "
            f"{question['image']!r}"
        )
    caption = contexts[question["image"]]
    context = "\n".join(caption) if isinstance(caption, list) else caption
    texts = [text_of(answer, "--answer-list") for answer in answers]
    fields = {
        "id": number,
        "question_id": question["question_id"],
        **{f"answer{n}_id": a.get("answer_id", a["question_id"]) for n, a in enumerate(answers, 1)},
        "category": category,
    }
    return {"fields": fields, "prompt": review_prompt(context, question["text"], texts, rules[category])}


def review(args: argparse.Namespace) -> None:
    """Judge what is not judged yet; the output gets its name once it is whole."""
    todo = tasks(args)
    file = RecordFile(args.output)
    strange = [r for r, task in zip(file.records, todo, strict=False) if _fields(r) != task["fields"]]
    if strange or len(file.records) > len(todo):
        raise OptionError(f"{args.output} holds reviews of other answers; remove it, or choose another --output")
    waiting = todo[len(file.records) :]
    judge = Judge(args.model, args.max_tokens) if waiting else None
    for task in tqdm(waiting, desc=args.output.stem, unit=" reviews"):
        if judge is not None:
            reply, marks = judge.mark(SYSTEM, task["prompt"], read_marks)
            file.append([{**task["fields"], "content": reply, "tuple": marks}])
    file.finish(file.records)


def _fields(review: Record) -> Record:
    return {name: value for name, value in review.items() if name not in ("content", "tuple")}


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(
        prog="python -m llava.eval.eval_gpt_review_bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-q", "--question", type=Path, required=True, help="the questions")
    parser.add_argument("-c", "--context", type=Path, required=True, help="descriptions of the pictures")
    parser.add_argument("-a", "--answer-list", type=Path, nargs=2, required=True, help="reference, and model")
    parser.add_argument("-r", "--rule", type=Path, default=RULES, help="what the judge is told, by category")
    parser.add_argument("-o", "--output", type=Path, required=True, help="where the reviews go")
    parser.add_argument("--max-tokens", type=int, default=1024, help="longest review, in tokens")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="the judge")
    args = parser.parse_args(arguments)
    return run_program(lambda: review(args))


if __name__ == "__main__":
    raise SystemExit(main())
