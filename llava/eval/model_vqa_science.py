"""Answers ScienceQA's questions, with and without an image: a JSON list of conversations."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.errors import DataError
from llava.eval.answering import runner
from llava.eval.answering.questions import (
    LETTER_PROMPT,
    Question,
    get_chunk,
    image_opener,
    question_text,
    split_list,
)
from llava.eval.answering.settings import make_parser, with_defaults
from llava.files.fields import id_field, optional_field, required_field
from llava.files.jsonl import read_json
from llava.program import run_program

__all__ = ["eval_model", "get_chunk", "main", "read_questions", "split_list"]


def read_questions(
    question_file: Path, image_folder: Path = Path(), *, single_pred_prompt: bool = False
) -> list[Question]:
    """Read the records' questions: ``id``, the first message, and ``image`` where a record has one.

    single_pred_prompt: ask for the option's letter. Raises ``DataError`` for a record that lacks a field, and for a
    missing image.
    """
    records = read_json(question_file, "--question-file")
    if not isinstance(records, list):
        raise DataError(f"--question-file {question_file} holds no JSON list of conversations")
    questions = []
    for number, record in enumerate(records, 1):
        where = f"--question-file {question_file}, question {number}"
        messages = required_field(record, "conversations", list, where)
        if not messages:
            raise DataError(f"{where} has no message in its conversation")
        text = required_field(messages[0], "value", str, f"{where}, its first message")
        text = text.replace(DEFAULT_IMAGE_TOKEN, "").strip()
        if single_pred_prompt:
            text += f"\n{LETTER_PROMPT}"
        image = optional_field(record, "image", str, where)
        open_image = None if image is None else image_opener(image_folder, image, where)
        question_text(text, open_image is not None, where)
        prompt = text if image is None else f"{DEFAULT_IMAGE_TOKEN}\n{text}"
        questions.append(Question(id_field(record, "id", where), prompt, text, open_image))
    return questions


def eval_model(args: object) -> None:
    """Answer the questions of ``args.question_file`` into ``args.answers_file``.

    args: an object with the program's flags as attributes, as upstream; missing ones have their defaults.
    """
    _answer(with_defaults(_parser(), args))


def _answer(args: argparse.Namespace) -> None:
    questions = read_questions(args.question_file, args.image_folder, single_pred_prompt=args.single_pred_prompt)
    runner.run(questions, args)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("model_vqa_science", __doc__)
    parser.add_argument("--answer-prompter", action="store_true", help="upstream's flag; accepted without effect")
    parser.add_argument("--single-pred-prompt", action="store_true", help="ask for the option's letter alone")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    args = _parser().parse_args(arguments)
    return run_program(lambda: _answer(args))


if __name__ == "__main__":
    raise SystemExit(main())
