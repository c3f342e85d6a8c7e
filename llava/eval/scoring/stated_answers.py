"""Reads ScienceQA's answers of the form "The answer is X.", ours and GPT-4's; shared by ``eval_science_qa_gpt4*``."""

from __future__ import annotations

import argparse
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.errors import DataError
from llava.eval.eval_science_qa import FAILED, LETTERS, STATED, choices_of, read_problems
from llava.eval.scoring.matching import by_id, check_same, text_of
from llava.files.fields import required_field, typed
from llava.files.jsonl import Record, read_json, read_records

log = logging.getLogger(__name__)


def stated(text: str) -> str:
    """Return the X of "The answer is X." where a text says that exactly once, else ``FAILED``."""
    letters: list[str] = STATED.findall(text)
    return letters[0] if len(letters) == 1 else FAILED


def get_pred_idx(prediction: str, choices: Sequence[Any], options: Sequence[str]) -> int:
    """Return the index of the choice that a letter names; a random one for what names none of them, as upstream.

    It is drawn from Python's own generator: seed ``random`` for the same draws again.
    """
    letters = list(options[: len(choices)])
    return letters.index(prediction) if prediction in letters else random.choice(range(len(choices)))


@dataclass(frozen=True)
class ProblemAnswers:
    """One problem with its answers.

    truth: index of the right choice, one of ``choices``. ours: a record of an answer file. gpt4: a text.
    """

    key: str
    choices: list[Any]
    truth: int
    ours: Record
    gpt4: str


def read_answers(
    base_dir: Path, split: str, our_result: Path, gpt4_result: Path, options: Sequence[str], partial: bool = False
) -> list[ProblemAnswers]:
    """Read the problems of a split, and both answers to each, in the split's order.

    our_result: answer file. gpt4_result: JSON with ``outputs``, texts by problem. partial: leave out problems that lack
    one of both answers, with a warning. Raises ``DataError`` for files that do not match.
    """
    problems = read_problems(base_dir, split)
    ours = by_id(read_records(our_result, "--our-result"), "question_id", f"--our-result {our_result}")
    where = f"--gpt4-result {gpt4_result}"
    outputs = required_field(read_json(gpt4_result, "--gpt4-result"), "outputs", dict, where)
    check_same(ours, problems, f"--our-result {our_result}", partial)
    check_same(outputs, problems, where, partial)
    kept = [key for key in problems if key in ours and key in outputs]
    if not kept:
        raise DataError(f"no problem of --split {split} has an answer in both --our-result {our_result} and {where}")
    if left_out := len(problems) - len(kept):
        log.warning("%d of %d problems lack our answer or GPT-4's, and are left out", left_out, len(problems))
    return [
        ProblemAnswers(
            key,
            *choices_of(key, problems[key], options),
            {"text": text_of(ours[key], f"--our-result {our_result}"), "prompt": ours[key].get("prompt")},
            typed(outputs[key], str, f"{where}: the output of {key}"),
        )
        for key in kept
    ]


def make_parser(program: str, description: str | None) -> argparse.ArgumentParser:
    """Make the parser of ``llava.eval.<program>`` with the flags that both programs have."""
    parser = argparse.ArgumentParser(
        prog=f"python -m llava.eval.{program}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--base-dir", type=Path, required=True, help="folder of problems.json and pid_splits.json")
    gpt4 = "JSON file of GPT-4's answers: texts by problem under 'outputs'"
    parser.add_argument("--gpt4-result", type=Path, required=True, help=gpt4)
    parser.add_argument("--our-result", type=Path, required=True, help="answer file of llava.eval.model_vqa_science")
    parser.add_argument("--split", default="test", help="split of the problems that were asked (default: %(default)s)")
    letters = "letters of the choices, in order (default: A B C D E)"
    parser.add_argument("--options", nargs="+", default=LETTERS, help=letters)
    parser.add_argument("--seed", type=int, default=0, help="seed of the guesses that replace answers without a letter")
    return parser
