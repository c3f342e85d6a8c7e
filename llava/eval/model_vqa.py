"""Answers a JSON-lines file of questions about images: ``question_id``, ``image``, ``text``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from llava.eval.answering import runner
from llava.eval.answering.questions import Question, get_chunk, image_opener, question_text, split_list
from llava.eval.answering.settings import make_parser, with_defaults
from llava.files.fields import id_field, required_field
from llava.files.jsonl import read_records
from llava.program import run_program

__all__ = ["eval_model", "get_chunk", "main", "read_questions", "split_list"]


def read_questions(question_file: Path, image_folder: Path = Path()) -> list[Question]:
    """Read the questions, one a line. Raises ``DataError`` for a line that lacks a field, and for a missing image."""
    questions = []
    for number, line in enumerate(read_records(question_file, "--question-file"), 1):
        where = f"--question-file {question_file}, question {number}"
        text = question_text(required_field(line, "text", str, where), True, where)
        open_image = image_opener(image_folder, required_field(line, "image", str, where), where)
        questions.append(Question(id_field(line, "question_id", where), text, text, open_image))
    return questions


def eval_model(args: object) -> None:
    """Answer the questions of ``args.question_file`` into ``args.answers_file``.

    args: an object with the program's flags as attributes, as upstream; missing ones have their defaults.
    """
    answer_file(with_defaults(make_parser("model_vqa", __doc__), args))


def answer_file(args: argparse.Namespace) -> None:
    """Answer a question file as all flags of a program say."""
    runner.run(read_questions(args.question_file, args.image_folder), args)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    args = make_parser("model_vqa", __doc__).parse_args(arguments)
    return run_program(lambda: answer_file(args))


if __name__ == "__main__":
    raise SystemExit(main())
