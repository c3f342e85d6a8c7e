"""Converts answers for SEED-Bench's server, and prints their accuracy.

Where only the questions about images are answered, their accuracy is printed, and no submission is written.

python scripts/convert_seed_for_submission.py --annotation-file SEED-Bench.json --result-file ANSWERS.jsonl
--result-upload-file UPLOAD.jsonl
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from llava.errors import DataError
from llava.eval.scoring.submissions import seed_scores, seed_scores_by_data, seed_upload
from llava.files.atomic_write import atomic_write
from llava.files.jsonl import lines_of, read_json, read_records
from llava.program import run_program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--annotation-file", type=Path, required=True, help="SEED-Bench's questions with their answers, SEED-Bench.json"
    )
    parser.add_argument("--result-file", type=Path, required=True, help="answer file to convert")
    parser.add_argument(
        "--result-upload-file", type=Path, required=True, help="file to write the submission to, JSON lines"
    )
    args = parser.parse_args(arguments)

    def convert() -> None:
        annotation = read_json(args.annotation_file, "--annotation-file")
        answers = read_records(args.result_file, "--result-file")
        try:
            scores = seed_scores(answers, annotation)
        except DataError:  # perhaps images were asked alone, without the videos' frames
            for name, accuracy in seed_scores_by_data(answers, annotation).items():
                print(f"{name}: {accuracy:.2f}%")
            raise
        atomic_write(args.result_upload_file, lines_of(seed_upload(answers, annotation["questions"])))
        print(f"Total accuracy: {scores['total']:.2f}%")
        for name, accuracy in {**scores["by_data"], **scores["by_type"]}.items():
            print(f"{name}: {accuracy:.2f}%")

    return run_program(convert)


if __name__ == "__main__":
    raise SystemExit(main())
