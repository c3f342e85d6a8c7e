"""Answers a JSON-lines file of questions without images: ``question_id``, ``text``.

The model is a language model or a LLaVA; its own conversation template, or --conv-mode, words the prompt.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from llava.eval.answering import runner
from llava.eval.answering.questions import Question, question_text
from llava.eval.answering.settings import make_parser
from llava.files.fields import id_field, required_field
from llava.files.jsonl import read_records
from llava.program import run_program

TEMPERATURE = 0.7  # at which upstream samples


def read_questions(question_file: Path) -> list[Question]:
    """Read the questions, one a line. Raises ``DataError`` for a line that lacks a field."""
    questions = []
    for number, line in enumerate(read_records(question_file, "--question-file"), 1):
        where = f"--question-file {question_file}, question {number}"
        text = question_text(required_field(line, "text", str, where), False, where)
        questions.append(Question(id_field(line, "question_id", where), text, text))
    return questions


def _parser() -> argparse.ArgumentParser:
    return make_parser("model_qa", __doc__, also={"model_path": "--model-name"}, temperature=TEMPERATURE)


def eval_model(model_name: str, questions_file: str, answers_file: str) -> None:
    """Answer the questions of a file into another with the program's default settings. Raises ``LlavaError``."""
    flags = ["--model-name", model_name, "--question-file", questions_file, "--answers-file", answers_file]
    _answer(_parser().parse_args([str(Path(flag).expanduser()) if flag[:1] == "~" else flag for flag in flags]))


def _answer(args: argparse.Namespace) -> None:
    runner.run(read_questions(args.question_file), args)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    args = _parser().parse_args(arguments)
    return run_program(lambda: _answer(args))


if __name__ == "__main__":
    raise SystemExit(main())
