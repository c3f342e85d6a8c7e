"""Makes the table of an ablation: what variants of a training run are worth, over seeds.

    python -m ada.eval.ablations runs/ablations/sweep/sweep.json --against "as published"

Reads a sweep whose models are labelled ``VARIANT #SEED``. A cell has the mean accuracy over the seeds with its 95 %
interval (Student's t), and the mean of the seeds' differences to ``--against`` with theirs.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

from scipy.stats import t as students_t

from llava.errors import CheckpointError, DataError, OptionError
from llava.files.atomic_write import atomic_write
from llava.files.fields import required_field
from llava.files.jsonl import read_json
from llava.program import run_program

Accuracies = dict[str, dict[float, dict[str, float]]]
"""Variant -> budget -> seed -> accuracy in percent."""


def read_accuracies(path: Path) -> Accuracies:
    """Read a sweep's accuracies on its test questions.

    Raises ``CheckpointError`` where the file is none of a sweep, and ``OptionError`` for a label without a seed.
    """
    try:
        rows = required_field(read_json(path, "the file"), "rows", list, "the file")
        cells = [_row(row, f"row {number}") for number, row in enumerate(rows, 1)]
    except DataError as error:
        raise CheckpointError(f"{path} is not the sweep.json of python -m ada.eval.sweep: {error}") from error
    found: Accuracies = {}
    for label, budget, accuracy in cells:
        named = re.fullmatch(r"(.+) #(\S+)", label)
        if named is None:
            raise OptionError(f"{path} has a model labelled {label!r}; expected VARIANT #SEED")
        seeds = found.setdefault(named[1], {}).setdefault(budget, {})
        if named[2] in seeds:
            raise OptionError(f"{path} has two rows of {label!r} at budget {budget:g}; sweep one planner only")
        seeds[named[2]] = accuracy
    return found


def _row(row: object, where: str) -> tuple[str, float, float]:
    """Return a row's label, budget, and accuracy in percent on its first set. Raises ``DataError`` for another row."""
    sets = list(required_field(row, "sets", dict, where).values())
    if not sets:
        raise DataError(f"{where} has no sets of questions")
    accuracy = required_field(sets[0], "accuracy", float, f"{where}, its first set")
    return required_field(row, "model", str, where), required_field(row, "budget", float, where), 100 * accuracy


def mean_and_reach(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and half the width of its 95 % interval, which is NaN for a single value."""
    if len(values) < 2:
        return fmean(values), float("nan")
    quantile = float(students_t.ppf(0.975, len(values) - 1))
    return fmean(values), quantile * stdev(values) / len(values) ** 0.5


def table(accuracies: Accuracies, against: str) -> str:
    """Make the table as Markdown.

    Raises ``OptionError`` for an unknown ``against``, and for a variant whose seeds differ from its.
    """
    if against not in accuracies:
        raise OptionError(f"--against is {against!r}; expected one of {', '.join(map(repr, accuracies))}")
    reference = accuracies[against]
    budgets = list(reference)
    lines = ["| variant | " + " | ".join(f"budget {b:g}" for b in budgets) + " |", "|---" * (len(budgets) + 1) + "|"]
    for variant, by_budget in accuracies.items():
        cells = [_cell(by_budget.get(b, {}), reference[b], variant, against) for b in budgets]
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(seeds: Mapping[str, float], reference: Mapping[str, float], variant: str, against: str) -> str:
    if seeds.keys() != reference.keys():
        raise OptionError(
            f"{variant!r} has the seeds {', '.join(sorted(seeds)) or 'none'}, {against!r} has "
            f"{', '.join(sorted(reference))}; differences need the same ones"
        )
    mean, reach = mean_and_reach(list(seeds.values()))
    cell = f"{mean:.1f} ± {reach:.1f}"
    if variant == against:
        return cell
    lead, lead_reach = mean_and_reach([seeds[seed] - reference[seed] for seed in reference])
    return f"{cell}<br>{lead:+.1f} ± {lead_reach:.1f}"


def main() -> int:
    """Run the program; exit code 2 for a user error."""
    parser = argparse.ArgumentParser(
        prog="python -m ada.eval.ablations", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweep", type=Path, help="sweep.json of a sweep whose models are labelled VARIANT #SEED")
    parser.add_argument("--against", required=True, metavar="VARIANT", help="variant that the others are compared with")
    parser.add_argument("--out", type=Path, help="file to write the table to, in addition to printing it")
    args = parser.parse_args()

    def work() -> None:
        text = table(read_accuracies(args.sweep), args.against)
        if args.out is not None:
            atomic_write(args.out, text)
        print(text, end="")

    return run_program(work)


if __name__ == "__main__":
    raise SystemExit(main())
