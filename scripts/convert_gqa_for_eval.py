"""Converts answers for GQA's ``eval.py``.

python scripts/convert_gqa_for_eval.py --src ANSWERS.jsonl --dst testdev_balanced_predictions.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from llava.eval.scoring.submissions import gqa_predictions
from llava.files.atomic_write import atomic_write
from llava.files.jsonl import read_records
from llava.program import run_program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--src", type=Path, required=True, help="answer file to convert")
    parser.add_argument("--dst", type=Path, required=True, help="JSON file to write the predictions to")
    args = parser.parse_args(arguments)

    def convert() -> None:
        atomic_write(args.dst, json.dumps(gqa_predictions(read_records(args.src, "--src"))))

    return run_program(convert)


if __name__ == "__main__":
    raise SystemExit(main())
