"""Converts answers for VizWiz's server.

python scripts/convert_vizwiz_for_submission.py --annotation-file llava_test.jsonl --result-file ANSWERS.jsonl
--result-upload-file UPLOAD.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from llava.eval.scoring.submissions import vizwiz_upload
from llava.files.atomic_write import atomic_write
from llava.files.jsonl import read_records
from llava.program import run_program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotation-file", type=Path, required=True, help="question file that was answered")
    parser.add_argument("--result-file", type=Path, required=True, help="answer file to convert")
    parser.add_argument("--result-upload-file", type=Path, required=True, help="JSON file to write the submission to")
    args = parser.parse_args(arguments)

    def convert() -> None:
        questions = read_records(args.annotation_file, "--annotation-file")
        rows = vizwiz_upload(read_records(args.result_file, "--result-file"), questions)
        atomic_write(args.result_upload_file, json.dumps(rows))

    return run_program(convert)


if __name__ == "__main__":
    raise SystemExit(main())
