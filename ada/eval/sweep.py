"""Accuracy and time by budget and planner: asks checkpoints every question of a suite, and makes tables, curves, heat
maps and a page of it.

    python -m ada.eval.sweep --suite shapes --budgets 1.0,0.85,0.75,0.6,0.5 --planners learned,even,last,random
    python -m ada.eval.sweep --question-file test.jsonl --image-folder images --model-path H=runs/H "even one=runs/even"
    python -m ada.eval.sweep --compare runs/one runs/other

Stopped at any moment, the same line goes on where it was: --out keeps every answer. Several processes may answer for
checkpoints of their own into one --out; a last line that names all of them then finds the answers there.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ada.budget import LatencyBudget
from ada.eval.answering.ask import Outcome, ask
from ada.eval.answering.model_specs import parse_contestants, runs_of
from ada.eval.compare import compare
from ada.eval.questions.benchmarks import BENCHMARKS
from ada.eval.questions.question_file import read_question_file
from ada.eval.questions.question_set import QuestionSet
from ada.eval.questions.suite import SUITES, read_suite
from ada.eval.report.write_report import write_report
from ada.eval.stats.results import make_rows
from ada.scheduling.planners import planner_named
from llava.errors import OptionError
from llava.plugins import hooks
from llava.program import run_program
from llava.utils import progress_only_on_terminals


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(
        prog="python -m ada.eval.sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--suite", metavar="NAME", help=f"test questions and their benchmarks: {', '.join(SUITES)}")
    what.add_argument("--question-file", type=Path, help="or questions of your own, one JSON object a line")
    what.add_argument(
        "--compare", nargs=2, type=Path, metavar=("A", "B"), help="or nothing: compare two finished sweeps' folders"
    )
    parser.add_argument(
        "--suite-data", type=Path, default=Path("runs/shapes/data"),
        help="folder of the suite's questions and pictures, made where it is not there (runs/shapes/data)",
    )  # fmt: skip
    parser.add_argument(
        "--suite-size", type=int, metavar="N",
        help="questions of each set, where the suite is to be made (5000 test questions, 600 of each benchmark)",
    )  # fmt: skip
    parser.add_argument(
        "--benchmarks", nargs="*", metavar="NAME", help=f"which of the suite's: {', '.join(BENCHMARKS)} (all)"
    )
    parser.add_argument("--image-folder", type=Path, help="folder that the pictures of --question-file are named in")
    parser.add_argument(
        "--model-path", nargs="+", metavar="[LABEL=]DIR[:PLANNER]",
        help="checkpoints (the bundled one); one that names its planner, here or in its config, answers under it alone",
    )  # fmt: skip
    parser.add_argument(
        "--budgets", nargs="+", default=["1,0.85,0.75,0.6,0.5"], help="latency budgets, with commas or spaces between"
    )
    parser.add_argument(
        "--planners", nargs="+", default=["learned,even,last,random"], help="what chooses the plans, likewise"
    )
    parser.add_argument("--out", type=Path, help="folder for answers, tables, figures and page (runs/sweep)")
    parser.add_argument(
        "--timed-questions", type=int, default=40, metavar="N", help="questions that are timed, one at a time; 0: none"
    )
    parser.add_argument("--conv-mode", help="conversation template; default: the one that the model was trained with")
    parser.add_argument("--batch-size", type=int, default=64, help="questions at a time, where nothing is timed")
    parser.add_argument("--max-new-tokens", type=int, default=16, help="longest answer, in tokens")
    parser.add_argument("--seed", type=int, default=0, help="of the random planner, and of the timed sample")
    parser.add_argument("--device", help="cpu, cuda or mps; by default the best there is")
    options = parser.parse_args(arguments)
    if options.batch_size < 1 or options.max_new_tokens < 1 or options.timed_questions < 0:
        parser.error("--batch-size and --max-new-tokens take whole numbers from 1 up, --timed-questions from 0")
    if options.question_file and not options.image_folder:
        parser.error("--question-file needs --image-folder")
    given = sys.argv[1:] if arguments is None else arguments
    options.command = shlex.join(["python", "-m", "ada.eval.sweep", *given])
    return options


def sweep(options: argparse.Namespace) -> str:
    """Answer what is not answered yet, write everything, warn of falls, and return the Markdown tables."""
    progress_only_on_terminals()
    options.out = options.out or Path("runs/sweep")
    budgets = [LatencyBudget.parse(text) for text in _listed(options.budgets)]
    planners = _listed(options.planners)
    for planner in planners:
        planner_named(planner)
    _check_each_once("--budgets", budgets)
    _check_each_once("--planners", planners)
    bundled = [path for path in hooks().default_model_path() if path]
    contestants = parse_contestants(options.model_path or bundled)
    sets = read_sets(options)
    outcomes: dict[str, Outcome] = {}
    for contestant in contestants:
        outcomes[contestant.label] = ask(contestant, runs_of(contestant, planners, budgets), sets, options)
    rows = make_rows(
        [run for outcome in outcomes.values() for run in outcome.parts],
        {label: outcome.family for label, outcome in outcomes.items()},
        {run: parts for outcome in outcomes.values() for run, parts in outcome.parts.items()},
        {run: times for outcome in outcomes.values() for run, times in outcome.times.items()},
    )
    return write_report(rows, next(iter(outcomes.values())), options)


def _listed(texts: Sequence[str]) -> list[str]:
    """Values with commas or spaces between."""
    return [value.strip() for text in texts for value in text.split(",")]


def _check_each_once(flag: str, values: Sequence[object]) -> None:
    if twice := [value for value in values if values.count(value) > 1]:
        raise OptionError(f"{flag} names {twice[0]} twice")


def read_sets(options: argparse.Namespace) -> list[QuestionSet]:
    """What is asked; the test questions come first."""
    if options.question_file:
        return [read_question_file(options.question_file, options.image_folder)]
    wanted = list(BENCHMARKS) if options.benchmarks is None else options.benchmarks
    if unknown := [name for name in wanted if name not in BENCHMARKS]:
        raise OptionError(f"--benchmarks names {unknown[0]!r}; expected some of {', '.join(BENCHMARKS)}")
    test, *others = read_suite(options.suite, options.suite_data, options.suite_size)
    return [test, *(questions for questions in others if questions.name in wanted)]


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; exit code 2 for what the user can mend."""
    options = parse_arguments(arguments)
    work = compare if options.compare else sweep
    return run_program(lambda: print(work(options), end=""))


if __name__ == "__main__":
    raise SystemExit(main())
