"""Answers Q-Bench's questions on how an image looks: a JSON list of ``img_path``, ``question`` and ``candidates``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from llava.errors import DataError
from llava.eval.answering import runner
from llava.eval.answering.questions import Question, image_opener, question_text
from llava.eval.answering.settings import make_parser, with_defaults
from llava.files.fields import id_field, list_of, objects_of, required_field, shown
from llava.files.jsonl import read_json
from llava.mm_utils import load_image
from llava.program import run_program

__all__ = ["eval_model", "load_image", "main", "read_questions"]

LETTERS = ("A.", "B.", "C.", "D.")
# Upstream's, after the question: in Chinese a backslash is where a line break is meant.
REQUESTS = {"en": "\nChoose between one of the options as follows:\n", "zh": "\\在下列选项中选择一个:\n"}
ANSWER = "response"  # the answer's field, next to the question's own


def read_questions(question_file: Path, image_folder: Path = Path(), *, lang: str = "en") -> list[Question]:
    """Read the questions, whose records keep all of their fields and get ``response``.

    lang: of the request to choose, a key of ``REQUESTS``. Raises ``DataError`` for a record that lacks a field, and for
    a missing image.
    """
    flag = f"--questions-file {question_file}"
    questions = []
    for number, record in enumerate(objects_of(read_json(question_file, "--questions-file"), flag), 1):
        where = f"{flag}, question {number}"
        options = list_of(required_field(record, "candidates", list, where), str, f"{where}: 'candidates'")
        if not 1 <= len(options) <= len(LETTERS):
            raise DataError(f"{where}: 'candidates' is {shown(options)}; expected 1 to {len(LETTERS)} options")
        lines = [f"{letter} {option}\n" for letter, option in zip(LETTERS, options, strict=False)]
        text = "".join([required_field(record, "question", str, where), REQUESTS[lang], *lines])
        open_image = image_opener(image_folder, required_field(record, "img_path", str, where), where)
        key = id_field(record, "question_id", where) if "question_id" in record else number - 1
        before = {name: value for name, value in record.items() if name != ANSWER}
        question_text(text, True, where)
        questions.append(Question(key, text, text, open_image, before=before, answer_field=ANSWER))
    return questions


def eval_model(args: object) -> None:
    """Answer the questions of ``args.questions_file``, or ``args.question_file``, into ``args.answers_file``.

    args: an object with the program's flags as attributes, as upstream; missing ones have their defaults.
    """
    _answer(with_defaults(_parser(), args))


def _answer(args: argparse.Namespace) -> None:
    runner.run(read_questions(args.question_file, args.image_folder, lang=args.lang), args)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("model_vqa_qbench", __doc__, also={"question_file": "--questions-file"}, temperature=0.0)
    parser.add_argument("--lang", choices=list(REQUESTS), default="en", help="language of the request to choose")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    args = _parser().parse_args(arguments)
    return run_program(lambda: _answer(args))


if __name__ == "__main__":
    raise SystemExit(main())
