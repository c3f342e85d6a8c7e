"""Answers a JSON-lines file of questions about pictures: ``question_id``, ``image``, ``text``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from llava.eval.answering.questions import Question, field_of, get_chunk, picture_file, split_list
from llava.eval.answering.runner import eval_questions, flags_of
from llava.files.jsonl import read_records
from llava.program import run_program

__all__ = ["eval_model", "get_chunk", "main", "read_questions", "split_list"]


def read_questions(args: argparse.Namespace) -> list[Question]:
    """Every line of ``--question-file``."""
    questions = []
    for number, line in enumerate(read_records(args.question_file, "--question-file"), 1):
        place = f"--question-file {args.question_file}, question {number},"
        text = field_of(line, "text", place)
        picture = picture_file(args.image_folder, field_of(line, "image", place))
        questions.append(Question(field_of(line, "question_id", place), text, text, picture))
    return questions


def eval_model(args: argparse.Namespace) -> None:
    """Answer the questions of ``args.question_file`` into ``args.answers_file``."""
    eval_questions(read_questions, args)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    args = flags_of("model_vqa", __doc__).parse_args(arguments)
    return run_program(lambda: eval_model(args))


if __name__ == "__main__":
    raise SystemExit(main())
