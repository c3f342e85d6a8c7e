"""Lets a judge model compare two answers to each question; shared by the programs ``eval_gpt_review*``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from llava.errors import DataError, OptionError
from llava.eval.scoring.llm_judge import DEFAULT_MODEL, Judge, check_judged, judged_by
from llava.eval.scoring.matching import by_id, check_same, text_of
from llava.files.fields import id_field, list_of, required_field, shown, typed
from llava.files.jsonl import Record, RecordFile, read_json, read_records

RULES = Path(__file__).parents[1] / "table" / "rule.json"
SYSTEM = "You are a helpful and precise assistant for checking the quality of the answer."
UNREADABLE = [-1.0, -1.0]  # marks of a review without any
SIDES = 2  # answers that are compared


@dataclass(frozen=True)
class ReviewTask:
    """One question to review: the review's fields apart from the judge's reply, and the judge's prompt."""

    fields: dict[str, Any]
    prompt: str


@dataclass(frozen=True)
class Kind:
    """How one program reviews.

    answer_id: an answer -> its id. context: a question -> the text that describes its image; None for questions without
    one. prefix: of a category's name in rules and reviews. default_rule: for categories that have no rule.
    """

    answer_id: Callable[[Record, str], Any]
    context: Callable[[Record, str], str] | None = None
    prefix: str = ""
    default_rule: str | None = None


def read_marks(reply: str) -> list[float] | None:
    """Return the two marks of a reply's first line; None where it does not have two numbers from 0 up."""
    cells = reply.strip().partition("\n")[0].replace(",", " ").split()
    try:
        marks = [float(cell) for cell in cells]
    except ValueError:
        return None
    return marks if len(marks) == SIDES and all(0 <= mark < float("inf") for mark in marks) else None


def parse_score(review: str) -> list[float]:
    """Return the two marks of a review's first line; [-1, -1] where it does not have two."""
    return read_marks(review) or list(UNREADABLE)


def marks_of(review: Record, where: str) -> list[float]:
    """Return a review's marks: ``tuple``, or ``score`` as old files name them.

    Raises ``DataError``, which begins with ``where``, for what is not two numbers from 0 up.
    """
    name = "score" if "score" in review and "tuple" not in review else "tuple"
    marks = list_of(required_field(review, name, list, where), float, f"{where}: {name!r}")
    if len(marks) != SIDES or min(marks) < 0:
        raise DataError(f"{where} has marks {shown(review[name])}; expected two, from 0 up")
    return marks


def answer_or_question_id(answer: Record, where: str) -> Any:
    """Return an answer's id, or its question's where it has none."""
    return id_field(answer, "answer_id" if "answer_id" in answer else "question_id", where)


def review_prompt(context: str | None, question: str, answers: Sequence[str], role: str, rule: str) -> str:
    """Make the judge's prompt: context if any, question, the answers by number, the rule."""
    parts = [f"[Context]\n{context}"] if context is not None else []
    parts.append(f"[Question]\n{question}")
    parts += [f"[{role} {n}]\n{answer}\n\n[End of {role} {n}]" for n, answer in enumerate(answers, 1)]
    return "\n\n".join([*parts, f"[System]\n{rule}"]) + "\n\n"


def review_tasks(questions: Path, answers: Sequence[Path], rule: Path, kind: Kind) -> list[ReviewTask]:
    """Make a task of each question from the files that the flags of the same names take.

    Raises ``DataError`` for files that do not match.
    """
    asked = by_id(read_records(questions, "--question"), "question_id", str(questions))
    sides = [by_id(read_records(path, "--answer-list"), "question_id", str(path)) for path in answers]
    for path, side in zip(answers, sides, strict=True):
        check_same(side, asked, str(path))
    rules = typed(read_json(rule, "--rule"), dict, f"--rule {rule}")
    tasks = []
    for number, (key, question) in enumerate(asked.items(), 1):
        where = f"{questions}: question {key}"
        category = kind.prefix + required_field(question, "category", str, where)
        name = category if category in rules else kind.default_rule
        if name not in rules:
            raise DataError(f"{where}: there is no rule for {category!r} in {rule}")
        role, text = (required_field(rules[name], part, str, f"--rule {rule}: {name!r}") for part in ("role", "prompt"))
        given = [(side[key], f"{path}: the answer to {key}") for path, side in zip(answers, sides, strict=True)]
        fields = {
            "id": number,
            "question_id": question["question_id"],
            **{f"answer{n}_id": kind.answer_id(*answer) for n, answer in enumerate(given, 1)},
            "category": category,
        }
        texts = [text_of(answer, "--answer-list") for answer, _ in given]
        context = kind.context(question, where) if kind.context else None
        asks = required_field(question, "text", str, where)
        tasks.append(ReviewTask(fields, review_prompt(context, asks, texts, role, text)))
    return tasks


def review(tasks: Sequence[ReviewTask], output: Path, model: str, judge: Callable[[], Judge]) -> None:
    """Let a judge, whose name is ``model``, review the tasks that ``output`` has no review of.

    It is made where there are some. Raises ``OptionError`` for an output of other answers, of another judge, or of
    other prompts.
    """
    file = RecordFile(output)
    mismatched = [r for r, task in zip(file.records, tasks, strict=False) if _fields(r) != task.fields]
    if mismatched or len(file.records) > len(tasks) or (file.complete and len(file.records) < len(tasks)):
        raise OptionError(f"{output} holds reviews of other answers; remove it, or choose another --output")
    for record, task in zip(file.records, tasks, strict=False):
        check_judged(record, judged_by(model, SYSTEM, task.prompt), output)
    waiting = tasks[len(file.records) :]
    asked = judge() if waiting else None
    for task in tqdm(waiting, desc=output.stem, unit=" reviews"):
        if asked is not None:
            reply, marks = asked.mark(SYSTEM, task.prompt, read_marks)
            how = judged_by(model, SYSTEM, task.prompt)
            file.append([{**task.fields, "content": reply, "tuple": marks, **how}])
    file.finish(file.records)


def _fields(review: Record) -> Record:
    given = ("content", "tuple", "judge", "prompt_hash")
    return {name: value for name, value in review.items() if name not in given}


def make_parser(
    program: str, description: str | None, *, context: str | None = None, model: str = DEFAULT_MODEL
) -> argparse.ArgumentParser:
    """Make the parser of ``llava.eval.<program>``.

    context: help of the flag --context; None for a program without. model: the default judge.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m llava.eval.{program}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-q", "--question", type=Path, required=True, help="questions, JSON lines")
    if context:
        parser.add_argument("-c", "--context", type=Path, required=True, help=context)
    parser.add_argument(
        "-a",
        "--answer-list",
        type=Path,
        nargs=SIDES,
        required=True,
        help="answer files of the reference and of the model",
    )
    rules = "JSON file of the judge's rules by category (default: this project's)"
    parser.add_argument("-r", "--rule", type=Path, default=RULES, help=rules)
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to write the reviews to, JSON lines")
    parser.add_argument("--max-tokens", type=int, default=1024, help="longest review, in tokens")
    parser.add_argument("--model", default=model, help="name of the judge model (default: %(default)s)")
    return parser
