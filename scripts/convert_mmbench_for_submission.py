"""Converts answers for MMBench's server: an Excel table.

python scripts/convert_mmbench_for_submission.py --annotation-file mmbench_dev_20230712.tsv --result-dir ANSWERS
--upload-dir UPLOADS --experiment llava-v1.5-7b
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

import openpyxl
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

from llava.eval.eval_mmbench.table import read_table
from llava.eval.scoring.submissions import mmbench_table
from llava.files.atomic_write import atomic_write
from llava.files.jsonl import read_records
from llava.program import run_program


def _cell(value: object) -> object:
    """Return what a table can hold: a text loses control characters, which Excel's format does not have."""
    return ILLEGAL_CHARACTERS_RE.sub("", value) if isinstance(value, str) else value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotation-file", type=Path, required=True, help="MMBench's table of questions, .tsv")
    parser.add_argument("--result-dir", type=Path, required=True, help="folder of the answer file EXPERIMENT.jsonl")
    parser.add_argument("--upload-dir", type=Path, required=True, help="folder to write EXPERIMENT.xlsx to")
    parser.add_argument("--experiment", required=True, help="name of the answers")
    args = parser.parse_args(arguments)

    def convert() -> None:
        answers = read_records(args.result_dir / f"{args.experiment}.jsonl", "the answers file")
        book = openpyxl.Workbook()
        for line in mmbench_table(read_table(args.annotation_file, "--annotation-file"), answers):
            book.active.append([_cell(value) for value in line])
        for cell in (cell for row in book.active for cell in row if cell.data_type == "f"):
            cell.data_type = "s"  # an answer that begins with "=" is a text, not a formula
        buffer = io.BytesIO()
        book.save(buffer)
        atomic_write(args.upload_dir / f"{args.experiment}.xlsx", buffer.getvalue())

    return run_program(convert)


if __name__ == "__main__":
    raise SystemExit(main())
