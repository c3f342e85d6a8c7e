"""Converts ScienceQA's problems into LLaVA's training file, or into instructions a line.

python scripts/convert_sqa_to_llava.py convert_to_llava --base-dir playground/data/eval/scienceqa --split train \
    --prompt-format QCM-LEA
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from convert_sqa_to_llava_base_prompt import LETTERS, build_prompt_chatbot

from llava.errors import DataError
from llava.eval.eval_science_qa import read_problems
from llava.files.atomic_write import atomic_write
from llava.files.fields import list_of, optional_field, required_field, shown
from llava.program import run_program

Row = dict[str, Any]


def convert_to_llava(base_dir: str | Path, split: str, prompt_format: str = "QCM-LEPA") -> None:
    """Write ``llava_SPLIT_FORMAT.json``, a conversation of one question for each problem. Raises DataError."""
    rows = []
    for key, image, asked, answered in _examples(Path(base_dir), split, prompt_format):
        turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": answered}]
        rows.append({"id": key, **image, "conversations": turns})
    print(f"Number of samples: {len(rows)}")
    atomic_write(Path(base_dir) / f"llava_{split}_{prompt_format}.json", json.dumps(rows, indent=2))


def convert_to_jsonl(base_dir: str | Path, split: str, prompt_format: str = "QCM-LEPA") -> None:
    """Write ``scienceqa_SPLIT_FORMAT.jsonl``, a line of instruction and output for each problem. Raises DataError."""
    rows = [
        {"id": key, **image, "instruction": asked, "output": answered}
        for key, image, asked, answered in _examples(Path(base_dir), split, prompt_format)
    ]
    path = Path(base_dir) / f"scienceqa_{split}_{prompt_format}.jsonl"
    atomic_write(path, "".join(json.dumps(row) + "\n" for row in rows))


def _examples(base_dir: Path, split: str, prompt_format: str) -> Iterator[tuple[str, Row, str, str]]:
    """Yield id, the field ``image`` where there is one, prompt and answer of each problem of a split."""
    problems = read_problems(base_dir, split)
    for key, problem in problems.items():
        check_problem(problem, f"{base_dir / 'problems.json'}, problem {key!r}")
    for key, (asked, answered) in build_prompt_chatbot(problems, list(problems), prompt_format).items():
        asked, answered = without_mark(asked, "Question: "), without_mark(answered, "Answer: ")
        if (name := problems[key].get("image")) is None:
            yield key, {}, asked, answered
        else:
            yield key, {"image": f"{key}/{name}"}, f"{asked}\n<image>", answered


def without_mark(text: str, mark: str) -> str:
    """Remove a mark from a text that begins with it: wherever it stands, as in upstream's training files."""
    return text.replace(mark, "") if text.startswith(mark) else text


def check_problem(problem: object, where: str) -> None:
    """Raise DataError for what is not one of ScienceQA's problems."""
    for name in ("question", "hint", "lecture", "solution"):
        required_field(problem, name, str, where)
    optional_field(problem, "image", str, where)
    choices = list_of(required_field(problem, "choices", list, where), str, f"{where}: 'choices'")
    if not 0 < len(choices) <= len(LETTERS):
        raise DataError(f"{where}: 'choices' is {shown(choices)}; expected a list of 1 to {len(LETTERS)} texts")
    answer = required_field(problem, "answer", int, where)
    if not 0 <= answer < len(choices):
        raise DataError(f"{where}: 'answer' is {answer}; expected the right choice's index, from 0")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    forms: dict[str, Callable[[Path, str, str], None]] = {
        "convert_to_llava": convert_to_llava,
        "convert_to_jsonl": convert_to_jsonl,
    }
    parser.add_argument("form", choices=forms, help="a training file, or instructions a line")
    parser.add_argument("--base-dir", type=Path, required=True, help="folder of problems.json and pid_splits.json")
    parser.add_argument("--split", required=True, help="the part of the problems, such as train")
    parser.add_argument("--prompt-format", default="QCM-LEPA", help="parts of prompt and answer, such as QCM-LEA")
    args = parser.parse_args(arguments)
    return run_program(lambda: forms[args.form](args.base_dir, args.split, args.prompt_format))


if __name__ == "__main__":
    raise SystemExit(main())
