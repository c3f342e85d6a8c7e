"""Accuracy by budget and planner: asks checkpoints every question of a file, and makes a table of it.

    python -m ada.eval.budget_table --model-path H=ada/checkpoints/shapes-H even-trained=runs/even:even \\
        --question-file runs/shapes/data/test.jsonl --image-folder runs/shapes/data/images --out runs/table

Stopped at any moment, the same line goes on where it was: --out keeps every answer.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from ada.budget import LatencyBudget
from ada.eval.answer_file import AnswerFile, check_source
from ada.eval.batches import Answerer
from ada.eval.contestants import Contestant, Run, parse_contestants, runs_of
from ada.eval.plot import save_png
from ada.eval.question_file import Question, read_questions
from ada.eval.table import Answers, make_rows, to_json, to_markdown
from ada.overlay import prepare_model
from ada.planners import PLANNERS
from llava.program import run_program


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(
        prog="python -m ada.eval.budget_table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model-path",
        nargs="+",
        required=True,
        metavar="[LABEL=]DIR[:PLANNER]",
        help="checkpoints; one that names its planner, here or in its config, answers under that one alone",
    )
    parser.add_argument("--question-file", type=Path, required=True, help="questions, one JSON object a line")
    parser.add_argument("--image-folder", type=Path, required=True, help="folder that their pictures are named in")
    parser.add_argument("--budgets", nargs="+", default=["1", "0.85", "0.75", "0.6", "0.5"], help="latency budgets")
    parser.add_argument("--planners", nargs="+", default=["learned", "even", "last", "random"], choices=list(PLANNERS))
    parser.add_argument("--out", type=Path, required=True, help="folder for answers, table.json and table.md")
    parser.add_argument("--plot", type=Path, help="PNG file for accuracy against budget")
    parser.add_argument("--conv-mode", help="conversation template; default: the one that the model was trained with")
    parser.add_argument("--batch-size", type=int, default=64, help="questions at a time")
    parser.add_argument("--max-new-tokens", type=int, default=16, help="longest answer, in tokens")
    parser.add_argument("--seed", type=int, default=0, help="of the random planner")
    parser.add_argument("--device", help="cpu, cuda or mps; by default the best there is")
    options = parser.parse_args(arguments)
    if options.batch_size < 1 or options.max_new_tokens < 1:
        parser.error("--batch-size and --max-new-tokens take whole numbers from 1 up")
    return options


def make_table(options: argparse.Namespace) -> str:
    """Answer what is not answered yet, write the tables, and return the Markdown one."""
    budgets = [LatencyBudget.parse(text) for text in options.budgets]
    contestants = parse_contestants(options.model_path)
    questions = read_questions(options.question_file, options.image_folder)
    answers: dict[Run, Answers] = {}
    for contestant in contestants:
        answers |= answer_all(contestant, runs_of(contestant, options.planners, budgets), questions, options)
    rows = make_rows(questions, answers)
    table, markdown = to_json(questions, rows), to_markdown(questions, rows)
    _write(options.out / "table.json", json.dumps(table, indent=1) + "\n")
    _write(options.out / "table.md", markdown)
    if options.plot:
        save_png(rows, table["best_constant_accuracy"], options.plot)
    return markdown


def answer_all(
    contestant: Contestant, runs: Sequence[Run], questions: Sequence[Question], options: argparse.Namespace
) -> dict[Run, Answers]:
    """One checkpoint's answers to all questions in all its runs, from ``--out`` where they are there."""
    folder = options.out / "answers" / contestant.slug
    check_source(folder, _source(contestant, options))
    answerer = Answerer(contestant.folder, options.conv_mode, options.max_new_tokens, options.device)
    for run in runs:
        prepare_model(model=answerer.model, options={"latency_budget": run.budget, "planner": run.planner})
    paths = {run: folder / run.file_name(answerer.model.units) for run in runs}
    files = {path: AnswerFile(path) for path in paths.values()}
    asked = {path: run for run, path in reversed(paths.items())}  # runs may share a file: the first one is answered
    with tqdm(total=len(files) * len(questions), desc=contestant.label, unit=" answers") as progress:
        # Batches outside, runs inside: a batch's pictures are read once, and none is kept.
        for batch in answerer.batches(questions, options.batch_size):
            waiting = [file for file in files.values() if not file.holds(batch.ids)]
            if waiting:
                answerer.see(batch, options.image_folder)
            for file in waiting:
                run = asked[file.path]
                file.append(answerer.answer(batch, run.planner, run.budget, options.seed))
            batch.pixels = None
            progress.update(len(files) * len(batch.ids))
    for file in files.values():
        file.finish([question.question_id for question in questions])
    return {run: files[path].answers for run, path in paths.items()}


def _source(contestant: Contestant, options: argparse.Namespace) -> dict[str, str | int]:
    """What the answers depend on, budgets and planners aside."""
    return {
        "checkpoint": contestant.fingerprint(),
        "question file": hashlib.sha256(options.question_file.read_bytes()).hexdigest(),
        "--conv-mode": options.conv_mode,
        "--batch-size": options.batch_size,
        "--max-new-tokens": options.max_new_tokens,
        "--seed": options.seed,
    }


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; exit code 2 for what the user can mend."""
    options = parse_arguments(arguments)
    return run_program(lambda: print(make_table(options), end=""))


if __name__ == "__main__":
    raise SystemExit(main())
