"""Answers MMBench's questions: a tab-separated file with pictures in base64 and up to four options."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator, Sequence

from PIL import Image

from llava.errors import DataError
from llava.eval.answering.questions import LETTER_PROMPT, Question, get_chunk, split_list
from llava.eval.answering.runner import eval_questions, flags_of
from llava.eval.scoring.mmbench_table import OPTIONS, Row, is_none, options_of, read_table
from llava.files.images import load_image_from_base64
from llava.program import run_program

__all__ = ["eval_model", "get_chunk", "is_none", "main", "read_questions", "split_list"]

LETTER_PROMPTS = {"en": LETTER_PROMPT, "cn": "请直接回答选项字母。"}


def read_questions(args: argparse.Namespace) -> list[Question]:
    """Every row of ``--question-file``, with ``--all-rounds`` once for each turn of its options."""
    rows = read_table(args.question_file, "--question-file")
    return [question for row in rows for question in _rounds(row, args)]


def _rounds(row: Row, args: argparse.Namespace) -> Iterator[Question]:
    options = options_of(row)
    if not row.get("image") or not options:
        raise DataError(f"--question-file {args.question_file}: question {row['index']} lacks its image or its options")
    text = row["question"] or ""
    if not is_none(row.get("hint")):
        text = f"{row['hint']}\n{text}"
    for turn in range(len(options) if args.all_rounds else 1):
        turned, letters = ([*cells[turn:], *cells[:turn]] for cells in (options, list(OPTIONS[: len(options)])))
        prompt = "\n".join([text, *(f"{a}. {b}" for a, b in zip(OPTIONS, turned, strict=False))])
        yield Question(
            int(row["index"] or 0),
            prompt,
            f"{prompt}\n{LETTER_PROMPTS[args.lang]}" if args.single_pred_prompt else prompt,
            functools.partial(_picture, row["image"] or ""),
            before={"round_id": turn},
            after={"options": turned, "option_char": letters},
        )


def _picture(text: str) -> Image.Image:
    return load_image_from_base64(text).convert("RGB")


def eval_model(args: argparse.Namespace) -> None:
    """Answer the questions of ``args.question_file`` into ``args.answers_file``."""
    eval_questions(read_questions, args)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    parser = flags_of("model_vqa_mmbench", __doc__)
    parser.add_argument("--all-rounds", action="store_true", help="ask once for each turn of the options")
    parser.add_argument("--single-pred-prompt", action="store_true", help="ask for the option's letter alone")
    parser.add_argument("--lang", choices=list(LETTER_PROMPTS), default="en", help="language of that request")
    args = parser.parse_args(arguments)
    return run_program(lambda: eval_model(args))


if __name__ == "__main__":
    raise SystemExit(main())
