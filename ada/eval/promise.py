"""Measures which promises of quality a checkpoint keeps: how often a sure cheap answer differs from the full model's.

    python -m ada.eval.promise --model-path runs/H --questions validation.jsonl --image-folder images

Every question is answered by the full model and under each of the cheap budgets, one at a time. For each promise the
cheapest budget is taken whose answers keep it, and written to promises.json next to the checkpoint's weights, where
--max-disagreement finds it. On test questions, which may be anyone's, the promise is counted; over random re-splits of
both, how often it is kept. Stopped at any moment, the same command resumes: --out keeps every answer.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ada.eval.answering.answer_file import AnswerFile, GivenRecord, check_source, note_source
from ada.eval.answering.batches import Answerer
from ada.eval.questions.question_file import read_question_file
from ada.eval.questions.question_set import Item, QuestionSet
from ada.eval.stats.promises import Tried, cheapest, held_in_resplits, promise_table
from ada.frontier.fingerprint import checkpoint_fingerprint
from ada.frontier.store import FILE_NAME as FRONTIER_FILE
from ada.options import prepare_model
from ada.protocols import is_adaptive
from ada.quality.cascade import margin
from ada.quality.disagreement import read_disagreement
from ada.quality.table import Promise, save_promises
from llava.errors import OptionError
from llava.eval.answering.questions import IMAGES
from llava.files.atomic_write import atomic_write
from llava.model.checkpoint.folder import local_folder
from llava.program import run_program
from llava.sampling import SamplingParams
from llava.utils import progress_only_on_terminals

BUDGETS = (0.5, 0.4, 0.34, 0.28)
RESPLITS = 100


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the flags of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m ada.eval.promise", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model-path", required=True, help="checkpoint to ask; promises.json is written into its folder")
    add(
        "--questions", "--question-file", dest="question_file", type=Path, required=True,
        help="questions that thresholds are chosen on, one JSON object a line; none that the model is later tested on",
    )  # fmt: skip
    add("--test-questions", type=Path, help="questions that the promises are counted on")
    add("--image-folder", type=Path, required=True, help="folder that holds the questions' images")
    add("--disagreement", nargs="+", default=["2%", "5%"], metavar="SHARE",
        help="shares of answers that may differ from the full model's (default: 2%% 5%%)")  # fmt: skip
    add("--budgets", nargs="+", type=float, default=BUDGETS, metavar="SHARE",
        help=f"budgets of the cheap plans to choose from (default: {' '.join(map(str, BUDGETS))})")  # fmt: skip
    add("--limit", type=int, default=2000, metavar="N", help="number of questions of each file (default: 2000)")
    add("--out", type=Path, default=Path("runs/promise"), help="folder for answers and table (default: runs/promise)")
    add("--max-new-tokens", type=int, default=16, help="maximum length of an answer in tokens (default: 16)")
    add("--conv-mode", help="conversation template; by default the one that the model was trained with")
    add("--device", help="device to run on: cpu, cuda or mps; by default the fastest one available")
    return parser.parse_args(arguments)


@dataclass(frozen=True)
class GivenTry(GivenRecord):
    """A question's answers: the full model's, with its FLOPs, and by budget the cheap plans' as ``Tried`` has them."""

    question_id: str
    text: str
    flops: int
    tried: dict[str, dict[str, Any]]


class TryAnswerer:
    """Answers a question by the full model, and under each budget."""

    def __init__(self, answerer: Answerer, budgets: Sequence[float], max_new_tokens: int) -> None:
        self.answerer, self.budgets = answerer, budgets
        self.sampling = SamplingParams(max_new_tokens=max_new_tokens)

    def __call__(self, number: int, item: Item) -> GivenTry:
        """Answer one question."""
        text, full, _ = self._answer(item, None)
        tried = {}
        for budget in self.budgets:
            cheap, flops, own = self._answer(item, budget)
            # Of a refused try the image's features are used again; of fewer image tokens nothing else can be.
            again = sum(full.values()) - full["vision_tower"] - full["projector"]
            tried[f"{budget:g}"] = {
                "margin": own,
                "differs": cheap != text,
                "share": sum(flops.values()) / sum(full.values()),
                "again": again / sum(full.values()),
            }
        return GivenTry(number, str(item.question.question_id), text, sum(full.values()), tried)

    def _answer(self, item: Item, budget: float | None) -> tuple[str, dict[str, int], float]:
        asked, prompt = self.answerer.asked, [self.answerer.prompt(item)]
        images = [] if item.question.open_image is None else [item.question.open_image()]
        options: dict[str, Any] = {"latency_budget": budget, "output_logits": True}
        if budget is None:
            options["image_tokens"] = "all"
        pixels, sizes = asked.pixels(images, prompt), [image.size for image in images] or None
        given = asked.answer(prompt, pixels, sizes, self.sampling, options)
        return given.texts[0], given.output.report.prefill_flops, margin(given.output.logits[0])


def measure(args: argparse.Namespace) -> str:
    """Answer what is not answered yet, write all files; return the table as Markdown.

    Raises ``OptionError`` for flags that cannot be used, CheckpointError for a folder that is no checkpoint.
    """
    progress_only_on_terminals()
    wanted = sorted({read_disagreement(text) for text in args.disagreement})
    if wrong := [budget for budget in args.budgets if not 0 < budget < 1]:
        raise OptionError(f"--budgets has {wrong[0]:g}; expected shares in (0, 1) such as 0.5")
    folder = local_folder(args.model_path)
    sets = {"validation": read_question_file(args.question_file, args.image_folder)}
    if args.test_questions is not None:
        sets["test"] = read_question_file(args.test_questions, args.image_folder)
    source = _source(checkpoint_fingerprint(folder, FRONTIER_FILE), sets, args)
    check_source(args.out, source)
    answerer = Answerer(folder, args.conv_mode, args.max_new_tokens, args.device)
    prepare_model(model=answerer.model, options={})
    if not is_adaptive(answerer.model):
        raise OptionError(f"{folder} has no scheduler, and so no cheap plans to try")
    note_source(args.out, source)
    asking = TryAnswerer(answerer, args.budgets, args.max_new_tokens)
    given = {name: _answered(asking, name, of, args) for name, of in sets.items()}
    tries = {
        name: {float(budget): [Tried(**one.tried[budget]) for one in of] for budget in of[0].tried}
        for name, of in given.items()
    }
    promises = [one for one in (cheapest(tries["validation"], share) for share in wanted) if one is not None]
    about = {
        "question_file": args.question_file.name,
        "budgets": list(args.budgets),
        "max_new_tokens": args.max_new_tokens,  # up to which the answers are compared
    }
    path = save_promises(folder, promises, about)
    table = _report(promises, wanted, tries)
    atomic_write(args.out / "promises.md", table)
    return f"{table}\nwrote {path}\n"


def _answered(asking: TryAnswerer, name: str, questions: QuestionSet, args: argparse.Namespace) -> list[GivenTry]:
    items = questions.items[: args.limit]
    file = AnswerFile(args.out / f"{name}.jsonl", GivenTry)
    if not file.holds(range(len(items))):
        file.reopen()  # it may be complete up to a lower --limit
    for number, item in enumerate(tqdm(items, desc=name)):
        if not file.holds([number]):
            file.append([asking(number, item)])
    return file.finish(range(len(items)))


def _source(checkpoint: str, sets: dict[str, QuestionSet], args: argparse.Namespace) -> dict[str, Any]:
    """Return what the answers depend on."""
    named = {f"{name} questions": of.fingerprint for name, of in sets.items()}
    named |= {f"{name} {IMAGES}": of.images for name, of in sets.items()}
    return {
        "checkpoint": checkpoint,
        **named,
        "--budgets": list(args.budgets),
        "--max-new-tokens": args.max_new_tokens,
        "--conv-mode": args.conv_mode,
    }


def _report(promises: Sequence[Promise], wanted: Sequence[float], tries: dict[str, dict[float, list[Tried]]]) -> str:
    """Return the table: each promise on validation and test questions, and how often re-splits of both keep it."""
    held = {}
    if "test" in tries:
        both = {budget: [*of, *tries["test"][budget]] for budget, of in tries["validation"].items()}
        count = len(next(iter(tries["validation"].values())))
        held = {share: held_in_resplits(both, share, count, RESPLITS) for share in wanted}
    return promise_table(promises, wanted, tries.get("test"), held)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; exit code 2 for a user error."""
    args = parse_arguments(arguments)
    return run_program(lambda: print(measure(args), end=""))


if __name__ == "__main__":
    raise SystemExit(main())
