"""Answers ScienceQA's questions, with and without a picture: a JSON list of conversations."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.errors import DataError
from llava.eval.answering.questions import LETTER_PROMPT, Question, field_of, get_chunk, picture_file, split_list
from llava.eval.answering.runner import eval_questions, flags_of
from llava.files.jsonl import read_json
from llava.program import run_program

__all__ = ["eval_model", "get_chunk", "main", "read_questions", "split_list"]


def read_questions(args: argparse.Namespace) -> list[Question]:
    """Every record of ``--question-file``: its ``id``, its first message, and its ``image`` where it has one."""
    records = read_json(args.question_file, "--question-file")
    if not isinstance(records, list):
        raise DataError(f"--question-file {args.question_file} holds no JSON list of conversations")
    questions = []
    for number, record in enumerate(records, 1):
        place = f"--question-file {args.question_file}, question {number},"
        messages = field_of(record, "conversations", place)
        if not messages:
            raise DataError(f"{place} has no message in its conversation")
        text = field_of(messages[0], "value", place).replace(DEFAULT_IMAGE_TOKEN, "").strip()
        if args.single_pred_prompt:
            text += f"\n{LETTER_PROMPT}"
        image = record.get("image")
        picture = picture_file(args.image_folder, image) if image else None
        prompt = f"{DEFAULT_IMAGE_TOKEN}\n{text}" if image else text
        questions.append(Question(field_of(record, "id", place), prompt, text, picture))
    return questions


def eval_model(args: argparse.Namespace) -> None:
    """Answer the questions of ``args.question_file`` into ``args.answers_file``."""
    eval_questions(read_questions, args)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    parser = flags_of("model_vqa_science", __doc__)
    parser.add_argument("--answer-prompter", action="store_true", help="of upstream; it changes nothing there either")
    parser.add_argument("--single-pred-prompt", action="store_true", help="ask for the option's letter alone")
    args = parser.parse_args(arguments)
    return run_program(lambda: eval_model(args))


if __name__ == "__main__":
    raise SystemExit(main())
