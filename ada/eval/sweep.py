"""Measures accuracy and latency by budget and planner, and writes tables, curves, heat maps and a page.

Checkpoints are asked every question of a suite or of a file:

    python -m ada.eval.sweep --suite shapes --budgets 1.0,0.85,0.75,0.6,0.5 --planners learned,even,last,random
    python -m ada.eval.sweep --question-file test.jsonl --image-folder images --model-path H=runs/H "even one=runs/even"
    python -m ada.eval.sweep --compare runs/one runs/other

Stopped at any moment, the same command resumes: --out keeps every answer. Several processes may answer for different
checkpoints into one --out; a last command that names all of them then finds the answers there.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ada.budget import LatencyBudget
from ada.eval.answering.answer_all import ModelOutcome, answer_all
from ada.eval.answering.model_specs import parse_model_specs, runs_of, token_settings
from ada.eval.compare import compare
from ada.eval.questions.benchmarks import BENCHMARKS
from ada.eval.questions.question_file import read_question_file
from ada.eval.questions.question_set import QuestionSet
from ada.eval.questions.suite import SUITES, read_suite
from ada.eval.report.write_report import write_report
from ada.eval.settings import SweepSettings
from ada.eval.stats.results import make_rows
from ada.scheduling.planners import planner_named
from llava.errors import OptionError
from llava.flags import add_dataclass_flags, from_flags
from llava.plugins import hooks
from llava.program import run_program
from llava.utils import progress_only_on_terminals


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the flags; ``command`` is the command line as one would type it."""
    parser = argparse.ArgumentParser(
        prog="python -m ada.eval.sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _add_question_flags(parser)
    models = parser.add_argument_group("Which models answer, and how much they may run")
    models.add_argument(
        "--model-path", nargs="+", metavar="[LABEL=]DIR[:PLANNER]",
        help="checkpoints to ask, by default the bundled one; one that names its planner, here or in its config, "
        "answers under that planner only",
    )  # fmt: skip
    models.add_argument(
        "--budgets", nargs="+", default=["1,0.85,0.75,0.6,0.5"],
        help="latency budgets as fractions of the prefill compute, separated by commas or spaces "
        "(default: 1,0.85,0.75,0.6,0.5)",
    )  # fmt: skip
    models.add_argument(
        "--planners", nargs="+", default=["learned,even,last,random"],
        help="planners that turn a budget into an execution plan, separated by commas or spaces "
        "(default: learned,even,last,random)",
    )  # fmt: skip
    models.add_argument(
        "--image-tokens", nargs="+", default=[], metavar="AMOUNT",
        help="amounts of image tokens to answer with, separated by commas or spaces, as all,50%%,50%%/25%%,auto; by "
        "default as the model answers",
    )  # fmt: skip
    models.add_argument(
        "--token-selectors", nargs="+", default=[], metavar="NAME",
        help="what chooses the image tokens, separated by commas or spaces, as salient,divprune; by default as "
        "the model answers",
    )  # fmt: skip
    add_dataclass_flags(parser, SweepSettings)
    given = sys.argv[1:] if arguments is None else arguments
    parser.set_defaults(command=shlex.join(["python", "-m", "ada.eval.sweep", *given]))
    args = parser.parse_args(arguments)
    if args.question_file and not args.image_folder:
        parser.error("--question-file needs --image-folder")
    return args


def _add_question_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("Which questions are asked")
    source = group.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--suite", metavar="NAME", help=f"ask a suite's test questions and its benchmarks: {', '.join(SUITES)}"
    )
    source.add_argument("--question-file", type=Path, help="ask the questions of this file, one JSON object a line")
    source.add_argument(
        "--compare", nargs=2, type=Path, metavar=("A", "B"),
        help="ask nothing: compare two finished sweeps, given as their --out folders",
    )  # fmt: skip
    group.add_argument(
        "--suite-data", type=Path, default=Path("runs/shapes/data"),
        help="folder of the suite's questions and images, generated where it is missing (default: runs/shapes/data)",
    )  # fmt: skip
    group.add_argument(
        "--suite-size", type=int, metavar="N",
        help="number of questions of each set, where the suite is generated; by default 5000 test questions and 600 "
        "of each benchmark",
    )  # fmt: skip
    group.add_argument(
        "--benchmarks", nargs="*", metavar="NAME",
        help=f"benchmarks of the suite to ask, by default all: {', '.join(BENCHMARKS)}",
    )  # fmt: skip
    group.add_argument("--image-folder", type=Path, help="folder that holds the images of --question-file")


def sweep(args: argparse.Namespace) -> str:
    """Answer what is not answered yet, write all files, warn where quality falls off; return the Markdown tables.

    Raises ``OptionError`` for flags that cannot be used.
    """
    progress_only_on_terminals()
    settings = from_flags(SweepSettings, args)
    budgets = [LatencyBudget.parse(text) for text in _listed(args.budgets)]
    planners = _listed(args.planners)
    for planner in planners:
        planner_named(planner)
    _check_each_once("--budgets", [f"{budget.fraction:g}" for budget in budgets])
    _check_each_once("--planners", planners)
    tokens = token_settings(_listed(args.image_tokens), _listed(args.token_selectors))
    bundled = [path for path in hooks().default_model_path() if path]
    specs = parse_model_specs(args.model_path or bundled)
    if args.question_file:
        sets = [read_question_file(args.question_file, args.image_folder)]
    else:
        sets = suite_sets(args.suite, args.suite_data, args.suite_size, args.benchmarks)
    outcomes: dict[str, ModelOutcome] = {}
    for spec in specs:
        outcomes[spec.label] = answer_all(spec, runs_of(spec, planners, budgets, tokens), sets, settings)
    rows = make_rows(
        {label: outcome.family for label, outcome in outcomes.items()},
        {run: parts for outcome in outcomes.values() for run, parts in outcome.parts.items()},
        {run: latency for outcome in outcomes.values() for run, latency in outcome.latency.items()},
    )
    return write_report(rows, next(iter(outcomes.values())).device, settings, args.command)


def suite_sets(name: str, data: Path, size: int | None, benchmarks: Sequence[str] | None) -> list[QuestionSet]:
    """Read a suite's test questions, then those of its ``benchmarks`` that are wanted: None for all."""
    wanted = list(BENCHMARKS) if benchmarks is None else benchmarks
    if unknown := [name for name in wanted if name not in BENCHMARKS]:
        raise OptionError(f"--benchmarks names {unknown[0]!r}; expected some of {', '.join(BENCHMARKS)}")
    test, *others = read_suite(name, data, size)
    return [test, *(questions for questions in others if questions.name in wanted)]


def _listed(texts: Sequence[str]) -> list[str]:
    """Split values that are separated by commas or spaces."""
    return [value.strip() for text in texts for value in text.split(",")]


def _check_each_once(flag: str, values: Sequence[object]) -> None:
    if twice := [value for value in values if values.count(value) > 1]:
        raise OptionError(f"{flag} names {twice[0]} twice")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; exit code 2 for a user error."""
    args = parse_arguments(arguments)

    def work() -> None:
        print(compare(tuple(args.compare), args.out) if args.compare else sweep(args), end="")

    return run_program(work)


if __name__ == "__main__":
    raise SystemExit(main())
