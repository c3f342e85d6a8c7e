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
from llava.files.atomic_write import atomic_write
from llava.files.jsonl import read_json
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
    file, splits = base_dir / "problems.json", read_object(base_dir / "pid_splits.json")
    problems = read_object(file)
    if not isinstance(splits.get(split), list):
        raise DataError(f"--split is {split!r}; {base_dir / 'pid_splits.json'} has {', '.join(splits)}")
    for key in splits[split]:
        check_problem(problems.get(key), f"{file}, problem {key!r}")
    for key, (asked, answered) in build_prompt_chatbot(problems, splits[split], prompt_format).items():
        asked, answered = asked.removeprefix("Question: "), answered.removeprefix("Answer: ")
        if (name := problems[key].get("image")) is None:
            yield key, {}, asked, answered
        else:
            yield key, {"image": f"{key}/{name}"}, f"{asked}\n<image>", answered


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file. Raises DataError."""
    value = read_json(path, "--base-dir")
    if not isinstance(value, dict):
        raise DataError(f"{path} holds {value!r:.100}; expected an object")
    return value


def check_problem(problem: Any, where: str) -> None:
    """Raise DataError for what is not one of ScienceQA's problems."""
    if not isinstance(problem, dict):
        raise DataError(f"{where} is {problem!r:.100}; expected an object")
    for name in ("question", "hint", "lecture", "solution"):
        if not isinstance(problem.get(name), str):
            raise DataError(f"{where}: {name} is {problem.get(name)!r:.100}; expected a text")
    if not isinstance(problem.get("image"), str | None):
        raise DataError(f"{where}: image is {problem['image']!r:.100}; expected a file name, or null")
    choices, answer = problem.get("choices"), problem.get("answer")
    if not isinstance(choices, list) or not 0 < len(choices) <= len(LETTERS):
        raise DataError(f"{where}: choices is {choices!r:.100}; expected a list of 1 to {len(LETTERS)} texts")
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise DataError(f"{where}: answer is {answer!r:.100}; expected the right choice's index, from 0")


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
