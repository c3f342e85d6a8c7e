"""Converts answers for MME's scorer: one CATEGORY.txt each, with the true answers.

python scripts/convert_answer_to_mme.py --experiment llava-v1.5-7b
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from llava.eval.eval_mme.ground_truth import read_truth
from llava.eval.scoring.submissions import mme_lines
from llava.files.atomic_write import atomic_write
from llava.files.jsonl import read_records
from llava.program import run_program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--experiment", required=True, help="name of the answers, which are DIR/answers/EXPERIMENT.jsonl"
    )
    parser.add_argument(
        "--dir", type=Path, default=Path("playground/data/eval/MME"), help="folder of MME (default: %(default)s)"
    )
    args = parser.parse_args(arguments)

    def convert() -> None:
        answers = read_records(args.dir / "answers" / f"{args.experiment}.jsonl", "the answers file")
        lines = mme_lines(answers, read_truth(args.dir / "MME_Benchmark_release_version"))
        folder = args.dir / "eval_tool" / "answers" / args.experiment
        for category, own in lines.items():
            atomic_write(folder / f"{category}.txt", "".join(f"{line}\n" for line in own))

    return run_program(convert)


if __name__ == "__main__":
    raise SystemExit(main())
