"""Measures a checkpoint's frontier: what image tokens and units are worth, on validation questions.

    python -m ada.eval.frontier --model-path runs/H --questions validation.jsonl --image-folder images

Every question is answered at a grid of settings. The accuracies go to frontier.json next to the checkpoint's weights,
where --image-tokens auto finds them; a table and a figure go to --out. Stopped at any moment, the same command resumes:
--out keeps every answer.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ada.eval.answering.answer_file import check_source, note_source
from ada.eval.answering.batches import Answerer
from ada.eval.answering.grid import GridAnswerer, GridSetting, answer_grid
from ada.eval.questions.question_file import read_question_file
from ada.eval.questions.question_set import QuestionSet
from ada.eval.report.frontier_figure import frontier_figure
from ada.eval.report.panels import drawn, save
from ada.eval.settings import FrontierSettings
from ada.eval.stats.frontier_points import Measured, chosen_curve, curves, frontier_table, measured_points
from ada.frontier.choice import AutoImageTokens, Prompt
from ada.frontier.fingerprint import checkpoint_fingerprint
from ada.frontier.share import PrefillShare
from ada.frontier.store import FILE_NAME, save_frontier
from ada.frontier.table import Frontier
from ada.image_tokens.amount import ImageTokens
from ada.image_tokens.late_selectors import late_selector
from ada.image_tokens.selection import for_selectors
from ada.image_tokens.selector_names import SelectorNames
from ada.latency.design import image_tokens_of
from ada.options import UNTRAINED, prepare_model
from ada.protocols import AdaptiveModel, is_adaptive
from ada.scheduling.planners import planner_named
from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import OptionError
from llava.eval.answering.questions import IMAGES
from llava.files.atomic_write import atomic_write
from llava.flags import add_dataclass_flags, from_flags
from llava.model.checkpoint.folder import local_folder
from llava.program import run_program
from llava.utils import progress_only_on_terminals

AMOUNTS = ("all", "75%", "50%", "25%", "12.5%")
LATE_AMOUNTS = ("all/25%", "all/12.5%", "50%/25%", "50%/12.5%", "25%/12.5%")
UNITS = (1.0, 0.75, 0.5, 0.3)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the flags of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m ada.eval.frontier", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    group = parser.add_argument_group("What is asked, and at which settings")
    group.add_argument(
        "--model-path", required=True, help="checkpoint to ask; frontier.json is written into its folder"
    )
    group.add_argument(
        "--questions", "--question-file", dest="question_file", type=Path, required=True,
        help="questions with answers, one JSON object a line; none that the model is later tested on",
    )  # fmt: skip
    group.add_argument("--image-folder", type=Path, required=True, help="folder that holds the questions' images")
    defaults = f"{' '.join(AMOUNTS)}, and with a trained token scorer also {' '.join(LATE_AMOUNTS)}"
    group.add_argument(
        "--image-tokens", nargs="+", metavar="AMOUNT",
        help=f"amounts of image tokens, as other programs take one (default: {defaults})".replace("%", "%%"),
    )  # fmt: skip
    group.add_argument(
        "--units", nargs="+", type=float, default=UNITS, metavar="SHARE",
        help=f"shares of the model's units, in (0, 1] (default: {' '.join(f'{share:g}' for share in UNITS)})",
    )  # fmt: skip
    add_dataclass_flags(parser, FrontierSettings)
    return parser.parse_args(arguments)


def measure(args: argparse.Namespace) -> str:
    """Answer what is not answered yet, write all files; return the table as Markdown.

    Raises ``OptionError`` for flags that cannot be used, CheckpointError for a folder that is no checkpoint.
    """
    progress_only_on_terminals()
    settings, folder = from_flags(FrontierSettings, args), local_folder(args.model_path)
    if not os.access(folder, os.W_OK):
        raise OptionError(
            f"--model-path {folder} cannot be written, and {FILE_NAME} belongs there; copy the checkpoint"
        )
    if settings.planner is not None:
        planner_named(settings.planner)  # before --out notes it
    questions = read_question_file(args.question_file, args.image_folder)
    questions = replace(questions, items=questions.items[: settings.limit])
    source = _source(checkpoint_fingerprint(folder), questions, settings)
    check_source(settings.out / "answers", source)
    answerer = Answerer(folder, settings.conv_mode, settings.max_new_tokens, settings.device, settings.narrow_cache_gb)
    named = {"planner": settings.planner, "narrow_cache_gb": settings.narrow_cache_gb}
    prepare_model(model=answerer.model, options=named, reads_frontier=False)  # one of other weights is written anew
    if not is_adaptive(answerer.model):
        raise OptionError(
            "--units are shares of what a plan may run, and this checkpoint (model_type "
            f"{answerer.model.config.model_type!r}) has no scheduler to plan with; give --planner "
            f"{'|'.join(UNTRAINED)}, with --units 1 where it leaves out image tokens alone"
        )
    grid = Grid.of(answerer.model, args.image_tokens, args.units, settings.token_selector)
    note_source(settings.out / "answers", source)
    options = {"planner": settings.planner, "token_selector": settings.token_selector}
    asking = GridAnswerer(answerer, options, settings.seed)
    given = answer_grid(asking, questions, grid.settings, settings.out / "answers", settings.batch_size)
    prompt = usual_prompt(answerer, questions)
    marks = {setting: [answer.right for answer in own] for setting, own in given.items()}
    measured = measured_points(marks, grid.share, prompt)
    about = {"question_file": args.question_file.name, "questions": len(questions.items), **options}
    path = save_frontier(folder, [one.point for one in measured], about)
    _report(measured, grid, prompt, settings.out)
    return f"{frontier_table(measured)}\nwrote {path} and {settings.out / 'frontier.png'}\n"


@dataclass(frozen=True)
class Grid:
    """The settings that are measured, each once, and what counts their shares."""

    settings: list[GridSetting]
    share: PrefillShare

    @classmethod
    def of(
        cls, model: AdaptiveModel, texts: Sequence[str] | None, units: Sequence[float], selector: str | None = None
    ) -> Grid:
        """Read amounts of image tokens, None for the default, and shares of units.

        Raises OptionError for a value that is no amount or no share, and for a selector that the model cannot run.
        """
        if texts is None:
            texts = AMOUNTS if getattr(model, "token_scorer", None) is None else (*AMOUNTS, *LATE_AMOUNTS)
        names = SelectorNames.of(selector, model)
        amounts = for_selectors([ImageTokens.parse(text) for text in texts], names)
        if any(amount.auto for amount in amounts):
            raise OptionError("--image-tokens is auto; expected amounts to measure, such as all 50% 25%")
        if wrong := [share for share in units if not 0 < share <= 1]:
            raise OptionError(f"--units has {wrong[0]:g}; expected shares in (0, 1] such as 1 0.75 0.5")
        granted = [model.units.granted(share) for share in units]
        settings = list(dict.fromkeys(GridSetting(amount, number) for amount in amounts for number in granted))
        first_late_layer = None
        if any(amount.late for amount in amounts):
            position = None if model.scheduler is None else torch.zeros(1, dtype=torch.long)
            first_late_layer, _ = late_selector(names.late, model, position)
        return cls(settings, PrefillShare.of(model.config, model.units, first_late_layer))


def usual_prompt(answerer: Answerer, questions: QuestionSet) -> Prompt:
    """Return a prompt with one image, and as much text as the questions' prompts have in the median."""
    texts = [sum(token != IMAGE_TOKEN_INDEX for token in answerer.prompt(item)) for item in questions.items]
    latency_token = int(answerer.model.scheduler is not None)
    return Prompt(int(statistics.median(texts)) + latency_token, (image_tokens_of(answerer.model),), 1)


def _source(checkpoint: str, questions: QuestionSet, settings: FrontierSettings) -> dict[str, Any]:
    """Return what the answers depend on, apart from their settings."""
    return {
        "checkpoint": checkpoint,
        "questions": questions.fingerprint,
        IMAGES: questions.images,
        "--planner": settings.planner,
        "--token-selector": settings.token_selector,
        "--conv-mode": settings.conv_mode,
        "--batch-size": settings.batch_size,
        "--max-new-tokens": settings.max_new_tokens,
        "--seed": settings.seed,
    }


def _report(measured: Sequence[Measured], grid: Grid, prompt: Prompt, out: Path) -> None:
    """Write the table, and the figure with the measured points and what ``auto`` chooses among their amounts."""
    frontier = Frontier(tuple(one.point for one in measured), str(out))
    amounts = list(dict.fromkeys(setting.amount for setting in grid.settings))
    chosen = chosen_curve(AutoImageTokens(frontier, grid.share, amounts), prompt, min(one.share for one in measured))
    save({"frontier": drawn(frontier_figure(curves(measured), chosen))}, out)
    atomic_write(out / "frontier.md", frontier_table(measured))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; exit code 2 for a user error."""
    args = parse_arguments(arguments)
    return run_program(lambda: print(measure(args), end=""))


if __name__ == "__main__":
    raise SystemExit(main())
