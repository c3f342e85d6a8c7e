"""Times what need not be read twice: ``python -m ada.bench reuse``.

Each case reads a prompt to its first token twice, with an empty cache and with one that knows what was read before; the
order is drawn, and a ratio is the median over rounds of the second time over the first.

A second look is the same question under another budget, after the full model's answer. Another question is about the
same image, in another chat. The turns of a chat are timed together, each after all that were answered before. The
shapes of a 7B model are counted, not timed: the operations of another question on an image of 576 tokens.

Prints a table, and the same as one JSON object on the last line. ``answers_equal`` says whether what was known has
changed no token of what was answered.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from ada.bench.models import SHAPES_7B, random_llava
from ada.image_tokens.selection import RowTokens
from ada.model.row_cost import RowCost
from ada.reuse.cache import ReuseCache
from ada.scheduling.execution_plan import ExecutionPlan
from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.errors import OptionError
from llava.files.images import load_image
from llava.generation import Answer, answer
from llava.model.loaded_model import LoadedModel, open_model
from llava.model.multimodal.image_pipeline import ImagePipeline, PreparedImages
from llava.sampling import SamplingParams

CACHE_BYTES = 10**9
ROOT = Path(__file__).parents[2]
IMAGE_FILE = ROOT / "playground" / "shapes" / "demo.png"
QUESTIONS = (
    "What word is written in the picture?",
    "What shape is the green object?",
    "How many objects are there?",
    "Where is the triangle?",
    "Describe the picture.",
)


@dataclass
class Case:
    """A row of the table: milliseconds to the first token in every round, of all prompts that it reads."""

    name: str
    budget: float | None
    anew: list[float] = field(default_factory=list)
    known: list[float] = field(default_factory=list)
    operations: list[float] = field(default_factory=list)  # with what is known, over those of reading anew
    equal: bool = True

    def figures(self) -> dict[str, Any]:
        """Return the row's figures: medians, and the median ratio of a round."""
        return {
            "case": self.name,
            "budget": self.budget,
            "anew_ms": round(statistics.median(self.anew), 2),
            "known_ms": round(statistics.median(self.known), 2),
            "ratio": round(statistics.median(b / a for a, b in zip(self.anew, self.known, strict=True)), 3),
            "operations": round(statistics.median(self.operations), 3),
            "answers_equal": self.equal,
        }


class Chats:
    """Asks a model about one image, in chats of any turns."""

    def __init__(self, loaded: LoadedModel, image: Image.Image) -> None:
        self.loaded = loaded
        self.images: PreparedImages = ImagePipeline(loaded.image_processor, loaded.model.config).prepare([image], 1)

    def prompt(self, turns: Sequence[tuple[str, str | None]]) -> str:
        """Return the prompt of questions and answers; the last answer is None."""
        chat = self.loaded.template.copy()
        for number, (question, said) in enumerate(turns):
            chat.append_message(chat.roles[0], question if number else f"{DEFAULT_IMAGE_TOKEN}\n{question}")
            chat.append_message(chat.roles[1], said)
        return chat.get_prompt()

    def ask(self, prompt: str, budget: float | None, reuse: ReuseCache | None, tokens: int = 1) -> Answer:
        """Answer a prompt with at most so many tokens."""
        options = {"latency_budget": None if budget is None else str(budget), "reuse": reuse}
        loaded, sampling = self.loaded, SamplingParams(temperature=0, max_new_tokens=tokens)
        parts = loaded.model, loaded.tokenizer, loaded.image_processor
        return answer(*parts, prompt, self.images, sampling=sampling, options=options)

    def long_chat(self, length: int) -> list[str]:
        """Return the prompts of a chat's turns, with the full model's answers in them."""
        turns: list[tuple[str, str | None]] = []
        prompts = []
        for number in range(length):
            prompts.append(self.prompt([*turns, (QUESTIONS[number % len(QUESTIONS)], None)]))
            said = self.ask(prompts[-1], None, None, tokens=16).text
            turns.append((QUESTIONS[number % len(QUESTIONS)], said))
        return prompts


def time_case(case: Case, chats: Chats, before: Sequence[str], prompts: Sequence[str], first_known: bool) -> None:
    """Read ``prompts`` anew, and after ``before`` was answered by the full model with what is known from there on."""

    def read(cache: ReuseCache | None) -> list[Answer]:
        return [chats.ask(prompt, case.budget, cache) for prompt in prompts]

    def read_known() -> list[Answer]:
        cache = ReuseCache(CACHE_BYTES)
        for prompt in before:
            chats.ask(prompt, None, cache)
        return read(cache)

    known = read_known() if first_known else []
    anew = read(None)
    known = known or read_known()
    case.anew.append(sum(one.timing["time_to_first_token_ms"] for one in anew))
    case.known.append(sum(one.timing["time_to_first_token_ms"] for one in known))
    case.operations.append(_prefill_gflops(known) / _prefill_gflops(anew))
    case.equal &= [one.token_ids for one in known] == [one.token_ids for one in anew]


def _prefill_gflops(answers: Sequence[Answer]) -> float:
    return float(sum(one.metadata["prefill_gflops"] for one in answers))


def cases_of(chats: Chats, budgets: Sequence[float], turns: int) -> Iterator[tuple[Case, list[str], list[str]]]:
    """Yield each case, the prompts that were answered before, and those that it reads."""
    first, other = (chats.prompt([(question, None)]) for question in QUESTIONS[:2])
    for budget in budgets:
        yield Case("second look", budget), [first], [first]
    yield Case("another question", None), [first], [other]
    yield Case(f"chat of {turns} turns", None), [], chats.long_chat(turns)


def operations_7b(question: int = 25, image: int = 576, system: int = 35) -> float:
    """Return the operations of another question on a known image over reading all of it, at 7B shapes and full plan.

    image: tokens of CLIP's large tower at 336 pixels; question and system: positions of text after it and before it.
    """
    model = random_llava("H", torch.device("meta"), SHAPES_7B | {"num_hidden_layers": 32})
    tokens = system + image + question + 1
    cost = RowCost(tokens, num_images=1, image_tokens=RowTokens((image,), (image,), (image,)))
    known = RowCost(**{**vars(cost), "known_tokens": (system + image,) * 2, "known_crops": 1})
    plan = ExecutionPlan.full(model.units.num_layers, model.units.num_switches)
    anew, again = (sum(one.flops(model, plan)[0].values()) for one in (cost, known))
    return again / anew


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this benchmark."""
    parser.add_argument("--model-path", help="checkpoint; by default the bundled one of kind H")
    parser.add_argument("--image-file", default=str(IMAGE_FILE), help="what the questions are about")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.75, 0.5], help="of second looks")
    parser.add_argument("--turns", type=int, default=20, help="of the chat")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds; medians are over these")


def run(args: argparse.Namespace) -> None:
    """Time everything, and print it. Raises OptionError for numbers below 1."""
    if min(args.turns, args.rounds) < 1:
        raise OptionError("--turns and --rounds take whole numbers from 1 up")
    loaded = open_model({"model_path": args.model_path, "device": "cpu"})
    chats, rng = Chats(loaded, load_image(args.image_file)), random.Random(0)
    cases = [*cases_of(chats, args.budgets, args.turns)]
    for number in tqdm(range(args.rounds + 1), desc="rounds (the first warms up)", file=sys.stderr):
        for case, before, prompts in cases:
            time_case(case, chats, before, prompts, first_known=rng.random() < 0.5)
            if not number:
                for figures in (case.anew, case.known, case.operations):
                    figures.clear()
    rows, share = [case.figures() for case, *_ in cases], operations_7b()
    table = Table(title=f"first token, {torch.get_num_threads()} threads: with what is known, over reading all anew")
    for column in ("case", "budget", "anew, ms", "known, ms", "ratio", "operations"):
        table.add_column(column, justify="left" if column == "case" else "right")
    for row in rows:
        table.add_row(*("" if row[key] is None else str(row[key]) for key in list(row)[:-1]))
    table.add_row("another question, 7B shapes", "", "", "", "", f"{share:.3f}")
    Console(width=110).print(table)
    settings = {"rounds": args.rounds, "turns": args.turns, "threads": torch.get_num_threads()}
    print(json.dumps({**settings, "torch": torch.__version__, "cases": rows, "operations_7b": round(share, 4)}))
