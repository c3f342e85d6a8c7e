"""Answers MMBench's questions: a tab-separated file of images in base64 and up to four options each."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from llava.errors import DataError
from llava.eval.answering import runner
from llava.eval.answering.questions import LETTER_PROMPT, Question, get_chunk, question_text, split_list
from llava.eval.answering.settings import make_parser, with_defaults
from llava.eval.eval_mmbench.table import OPTIONS, Row, get_options, is_none, options_of, read_table
from llava.files.images import decode_base64, open_image
from llava.program import run_program

__all__ = [
    "all_options",
    "eval_model",
    "get_chunk",
    "get_options",
    "is_none",
    "main",
    "read_questions",
    "split_list",
]

all_options = list(OPTIONS)

LETTER_PROMPTS = {"en": LETTER_PROMPT, "cn": "请直接回答选项字母。"}


@dataclass(frozen=True)
class TableImage:
    """Opens an image that a cell of the table holds, in base64; ``name`` names it in messages."""

    text: str
    name: str

    def __call__(self, *, turn_by_exif: bool = False) -> Image.Image:
        """Return the image in RGB. Raises ``ImageError`` for a text that is none."""
        encoded = decode_base64(self.text, name=self.name)
        return open_image(encoded, turn_by_exif=turn_by_exif, name=self.name).image

    @property
    def identity(self) -> str:
        """A hash of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def read_questions(
    question_file: Path, *, all_rounds: bool = False, single_pred_prompt: bool = False, lang: str = "en"
) -> list[Question]:
    """Read the table's questions, with ``all_rounds`` once for each rotation of their options.

    single_pred_prompt: ask for the option's letter, in the language ``lang``. Raises ``DataError`` for a row without
    text, image or options.
    """
    request = f"\n{LETTER_PROMPTS[lang]}" if single_pred_prompt else ""
    questions: list[Question] = []
    for row in read_table(question_file, "--question-file"):
        where = f"--question-file {question_file}: question {row['index']}"
        if not row.get("image") or not options_of(row) or row["question"] is None:
            raise DataError(f"{where} lacks its text, its image or its options")
        rounds = len(options_of(row)) if all_rounds else 1
        questions += _rounds(row, rounds, request, where)
    return questions


def _rounds(row: Row, rounds: int, request: str, where: str) -> Iterator[Question]:
    """Yield the row's question once a round, each time with its options rotated by one more."""
    options, letters = options_of(row), list(OPTIONS[: len(options_of(row))])
    hint = "" if is_none(row.get("hint")) else f"{row['hint']}\n"
    for shift in range(rounds):
        rotated = [*options[shift:], *options[:shift]]
        lines = [f"{letter}. {option}" for letter, option in zip(OPTIONS, rotated, strict=False)]
        prompt = question_text("\n".join([f"{hint}{row['question']}", *lines]), True, where)
        yield Question(
            int(row["index"] or 0),
            prompt,
            prompt + request,
            TableImage(row["image"] or "", f"{where}: the image"),
            before={"round_id": shift},
            after={"options": rotated, "option_char": [*letters[shift:], *letters[:shift]]},
        )


def eval_model(args: object) -> None:
    """Answer the questions of ``args.question_file`` into ``args.answers_file``.

    args: an object with the program's flags as attributes, as upstream; missing ones have their defaults.
    """
    _answer(with_defaults(_parser(), args))


def _answer(args: argparse.Namespace) -> None:
    questions = read_questions(
        args.question_file,
        all_rounds=args.all_rounds,
        single_pred_prompt=args.single_pred_prompt,
        lang=args.lang,
    )
    runner.run(questions, args)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("model_vqa_mmbench", __doc__)
    parser.add_argument("--all-rounds", action="store_true", help="ask once for each rotation of the options")
    parser.add_argument("--single-pred-prompt", action="store_true", help="ask for the option's letter alone")
    parser.add_argument(
        "--lang", choices=list(LETTER_PROMPTS), default="en", help="language of the request of --single-pred-prompt"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    args = _parser().parse_args(arguments)
    return run_program(lambda: _answer(args))


if __name__ == "__main__":
    raise SystemExit(main())
