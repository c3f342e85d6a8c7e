r"""Writes the data of a web page that shows answers next to a judge's reviews: questions, answers, reviews, marks.

    python -m llava.eval.generate_webpage_data_from_table --questions question.jsonl --output data.json \
        --answers llama=answer_llama-13b.jsonl vicuna=answer_vicuna-13b.jsonl \
        --reviews llama=review_llama-13b_vicuna-13b.jsonl

A review compares the answers of its name with those of a reference that has no reviews, here vicuna.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.errors import OptionError
from llava.eval.scoring.matching import by_id, check_same, text_of
from llava.eval.scoring.reviews import marks_of
from llava.files.atomic_write import atomic_write
from llava.files.fields import id_field, required_field
from llava.files.jsonl import Record, read_records
from llava.program import run_program

models = ["alpaca", "llama", "gpt35", "bard"]
REFERENCE = "vicuna"
_FILES = {"alpaca": "alpaca-13b", "llama": "llama-13b", "vicuna": "vicuna-13b"}  # names in upstream's table
_MARKS = re.compile(r"\d+[, ]+\d+")  # at the start of a review


def read_jsonl(path: str, key: str | None = None) -> list[Record] | dict[Any, Record]:
    """Read a JSON-lines file: a list, or with ``key`` a dict by that field, sorted by it. Raises ``DataError``."""
    records = read_records(Path(path).expanduser(), "the file")
    if key is None:
        return records
    by_id(records, key, path)
    return {record[key]: record for record in sorted(records, key=lambda r: (isinstance(r[key], str), r[key]))}


def trim_hanging_lines(s: str, n: int) -> str:
    """Return a text without its first ``n`` lines, and without space around it."""
    text = s.strip()
    for _ in range(n):
        text = text.partition("\n")[2].strip()
    return text


def page_data(questions: Path, answers: Mapping[str, Path], reviews: Mapping[str, Path]) -> dict[str, Any]:
    """Return ``questions`` in the order of their ids, and ``models``, the names that have reviews.

    A question: ``id``, ``category``, ``question``, ``answers`` (texts by name), ``evaluations`` (reviews by name, their
    two sides in bold), ``scores`` (two marks by name). Raises ``DataError`` for files that do not match.
    """
    asked = by_id(read_records(questions, "--questions"), "question_id", f"--questions {questions}")
    given = {name: _matched(path, "--answers", asked) for name, path in answers.items()}
    judged = {name: _matched(path, "--reviews", asked) for name, path in reviews.items()}
    rows = []
    for key, question in asked.items():
        where = f"--questions {questions}: question {key}"
        about = {name: f"--reviews {reviews[name]}: the review of {key}" for name in judged}
        rows.append(
            {
                "id": id_field(question, "question_id", where),
                "category": required_field(question, "category", str, where),
                "question": required_field(question, "text", str, where),
                "answers": {name: text_of(own[key], f"--answers {answers[name]}") for name, own in given.items()},
                "evaluations": {name: _evaluation(own[key], about[name]) for name, own in judged.items()},
                "scores": {name: marks_of(own[key], about[name]) for name, own in judged.items()},
            }
        )
    rows.sort(key=lambda row: (isinstance(row["id"], str), row["id"]))
    return {"questions": rows, "models": list(judged)}


def _matched(path: Path, flag: str, asked: Mapping[str, Record]) -> dict[str, Record]:
    records = by_id(read_records(path, flag), "question_id", f"{flag} {path}")
    check_same(records, asked, f"{flag} {path}")
    return records


def _evaluation(review: Record, where: str) -> str:
    """Return a review's text (``content``; ``text`` in old files) without a first line of marks."""
    text = required_field(review, "text" if "text" in review else "content", str, where).strip()
    if _MARKS.match(text):
        text = text.partition("\n")[2]
    for side in ("Assistant 1", "Assistant 2"):
        text = text.replace(side, f"**{side}**")
    return text


def _named(pairs: Sequence[str], flag: str) -> dict[str, Path]:
    """Read ``NAME=FILE`` pairs. Raises ``OptionError`` for what is none, and for a name that is there twice."""
    found: dict[str, Path] = {}
    for pair in pairs:
        name, sign, path = pair.partition("=")
        if not (name and sign and path) or name in found:
            raise OptionError(f"{flag} has {pair!r}; expected NAME=FILE, each name once")
        found[name] = Path(path)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m llava.eval.generate_webpage_data_from_table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    table = Path("table")
    answers = [f"{name}={table}/answer/answer_{_FILES.get(name, name)}.jsonl" for name in (*models, REFERENCE)]
    reviews = [f"{n}={table}/review/review_{_FILES.get(n, n)}_{_FILES[REFERENCE]}.jsonl" for n in models]
    default = "(default: upstream's table in this folder)"
    parser.add_argument(
        "--questions", type=Path, default=table / "question.jsonl", help=f"questions, JSON lines {default}"
    )
    parser.add_argument(
        "--answers", nargs="+", default=answers, help=f"answer files by name: NAME=FILE, one or more {default}"
    )
    parser.add_argument(
        "--reviews", nargs="+", default=reviews, help=f"files of reviews by name: NAME=FILE, one or more {default}"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("webpage/data.json"), help="JSON file to write (default: %(default)s)"
    )
    args = parser.parse_args(arguments)

    def write() -> None:
        answers, reviews = _named(args.answers, "--answers"), _named(args.reviews, "--reviews")
        if strange := sorted(set(reviews) - set(answers)):
            raise OptionError(f"--reviews has {strange[0]!r}, which --answers has not; expected answers for each")
        atomic_write(args.output, json.dumps(page_data(args.questions, answers, reviews), indent=2) + "\n")

    return run_program(write)


if __name__ == "__main__":
    raise SystemExit(main())
