"""Converts answers for VQAv2's server.

python scripts/convert_vqav2_for_submission.py --ckpt llava-v1.5-7b --split llava_vqav2_mscoco_test-dev2015
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from llava.eval.scoring.submissions import vqav2_upload
from llava.files.atomic_write import atomic_write
from llava.files.jsonl import read_records
from llava.program import run_program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--dir", type=Path, default=Path("playground/data/eval/vqav2"), help="folder of VQAv2 (default: %(default)s)"
    )
    parser.add_argument(
        "--ckpt", required=True, help="name of the model, whose answers are DIR/answers/SPLIT/CKPT/merge.jsonl"
    )
    parser.add_argument("--split", required=True, help="split of the questions that were asked")
    args = parser.parse_args(arguments)

    def convert() -> None:
        answers = read_records(args.dir / "answers" / args.split / args.ckpt / "merge.jsonl", "the answers file")
        questions = read_records(args.dir / "llava_vqav2_mscoco_test2015.jsonl", "the test split")
        upload = args.dir / "answers_upload" / args.split / f"{args.ckpt}.json"
        atomic_write(upload, json.dumps(vqav2_upload(answers, questions)))

    return run_program(convert)


if __name__ == "__main__":
    raise SystemExit(main())
