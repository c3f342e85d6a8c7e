"""Scores MMBench with known answers: questions right in the first round, and in every round of their options.

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
from llava.eval.scoring.matching import check_same, percent_by, text_of
from llava.eval.scoring.mmbench_table import Row, read_table
from llava.files.jsonl import Record, read_records
from llava.program import run_program


def chosen(record: Record) -> str | None:
    """Return the original letter of the option that an answer names; None where it names none.

    A round rotates the options; ``option_char`` has their original letters.
    """
    text = text_of(record, "the result file").strip()
    letter = text[:1] if text[1:2] in ("", ".", ")", " ", ":") else ""
    index = "ABCD".find(letter) if letter else -1
    letters: list[str] = record["option_char"]
    return letters[index] if 0 <= index < len(letters) else None


def mmbench_scores(rows: Sequence[Row], records: Sequence[Record]) -> dict[str, Any]:
    """Return ``questions`` (their number), and ``accuracy``, ``circular_accuracy`` and ``by_category`` in percent.

    ``accuracy`` and ``by_category`` are of first rounds; ``circular_accuracy`` counts the questions that are right in
    all rounds, and is None where there is one round. Raises ``DataError`` for answers that are not to these questions.
    """
    truths = {int(row["index"] or 0): row for row in rows}
    if any(not row.get("answer") for row in rows):
        raise DataError("the annotation file has questions without an answer, as test splits do; submit it instead")
    check_same((record["question_id"] for record in records), truths, "the result file")
    rounds: defaultdict[int, dict[int, bool]] = defaultdict(dict)
    for record in records:
        turn = record["round_id"]
        if turn in rounds[record["question_id"]]:
            raise DataError(f"question {record['question_id']} has two answers in round {turn}; two runs in a file?")
        rounds[record["question_id"]][turn] = chosen(record) == truths[record["question_id"]]["answer"]
    hits: defaultdict[str, list[bool]] = defaultdict(list)
    for index, turns in rounds.items():
        hits[truths[index].get("category") or "none"].append(turns[0])
    several = any(len(turns) > 1 for turns in rounds.values())
    return {
        "questions": len(rounds),
        "accuracy": 100 * sum(turns[0] for turns in rounds.values()) / len(rounds),
        "circular_accuracy": 100 * sum(all(t.values()) for t in rounds.values()) / len(rounds) if several else None,
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


if __name__ == "__main__":
    raise SystemExit(main())
