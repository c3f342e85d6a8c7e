"""Scores MMBench with known answers: questions right as they were first asked, and in every rotation of their options.

python -m llava.eval.eval_mmbench --annotation-file mmbench_dev_20230712.tsv --result-file FILE
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.errors import DataError
from llava.eval.eval_mmbench.table import OPTIONS, Row, options_of, read_table
from llava.eval.scoring.matching import by_id, check_same, mean, percent_by, text_of
from llava.files.fields import id_field, list_of, required_field, shown
from llava.files.jsonl import Record, read_records
from llava.program import run_program

ROTATED = 1_000_000
"""From this index on, a row of MMBench's table is the question of another one with its options rotated: 1000241 and
2000241 are 241."""


def chosen(record: Record) -> str | None:
    """Return the original letter of the option that an answer names; None where it names none.

    A round rotates the options; ``option_char`` has their original letters.
    """
    where = f"the result file: the answer to {shown(record.get('question_id'))}"
    text = text_of(record, "the result file").strip()
    letter = text[:1] if text[1:2] in ("", ".", ")", " ", ":") else ""
    index = OPTIONS.index(letter) if letter in OPTIONS else -1
    letters = list_of(required_field(record, "option_char", list, where), str, f"{where}: 'option_char'")
    return letters[index] if 0 <= index < len(letters) else None


def true_letters(rows: Sequence[Row]) -> dict[str, str]:
    """Return the letter of each question's right option, by its index. Raises ``DataError`` where one has none."""
    letters = {key: row.get("answer") for key, row in by_id(rows, "index", "the annotation file").items()}
    if not all(letters.values()):
        raise DataError("the annotation file has questions without an answer, as test splits do; submit it instead")
    for key, letter in letters.items():
        if letter not in OPTIONS:
            raise DataError(f"the annotation file: the answer to {key} is {shown(letter)}; expected A, B, C or D")
    return {key: str(letter) for key, letter in letters.items()}


def mmbench_scores(rows: Sequence[Row], records: Sequence[Record]) -> dict[str, Any]:
    """Return ``questions`` (their number), and ``accuracy``, ``circular_accuracy`` and ``by_category`` in percent.

    ``accuracy`` and ``by_category`` are of first rounds, and of rows that are no rotation of another one.
    ``circular_accuracy``, the benchmark's published metric, counts the questions that are right in all rounds and all
    rows; it is None where each is asked once. Raises ``DataError`` for answers that are not to these questions.
    """
    truths, asked = true_letters(rows), by_id(rows, "index", "the annotation file")
    keys = [str(id_field(r, "question_id", f"the result file, answer {n}")) for n, r in enumerate(records, 1)]
    check_same(keys, truths, "the result file")
    rounds: defaultdict[str, dict[int, bool]] = defaultdict(dict)
    for key, record in zip(keys, records, strict=True):
        turn = required_field(record, "round_id", int, f"the result file: the answer to {key}")
        if turn in rounds[key]:
            raise DataError(f"question {key} has two answers in round {turn}; is it two runs in one file?")
        rounds[key][turn] = chosen(record) == truths[key]
    several = any(len(turns) > 1 for turns in rounds.values())
    hits: defaultdict[str, list[bool]] = defaultdict(list)
    of_question: defaultdict[int, list[bool]] = defaultdict(list)
    for key, turns in rounds.items():
        expected = len(options_of(asked[key])) if several else 1
        if sorted(turns) != list(range(expected)):
            raise DataError(
                f"question {key} has answers in the rounds {sorted(turns)}; expected all from 0 to {expected - 1}"
            )
        of_question[int(key) % ROTATED] += turns.values()
        if int(key) < ROTATED:
            hits[asked[key].get("category") or "none"].append(turns[0])
    first, circular = [hit for own in hits.values() for hit in own], [all(own) for own in of_question.values()]
    asked_again = several or len(circular) < len(rounds)
    return {
        "questions": len(circular),
        "accuracy": 100 * mean(first, f"questions with an index below {ROTATED:,}"),
        "circular_accuracy": 100 * mean(circular, "questions") if asked_again else None,
        "by_category": percent_by(hits),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m llava.eval.eval_mmbench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--annotation-file", type=Path, required=True, help="MMBench's .tsv with its answers")
    parser.add_argument("--result-file", type=Path, required=True, help="answer file of llava.eval.model_vqa_mmbench")
    args = parser.parse_args(arguments)

    def show() -> None:
        rows = read_table(args.annotation_file, "--annotation-file")
        print(json.dumps(mmbench_scores(rows, read_records(args.result_file, "--result-file"))))

    return run_program(show)
