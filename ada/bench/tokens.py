"""Times what fewer image tokens save: the time to first token by amount, selector and budget.

A Llama stack with the layer shapes of a 7B model (as many layers as memory allows, bfloat16, without vision tower and
output layer) runs as AdaLLaVA-L on a prompt of text and one image. A case leaves image tokens out, before the decoder
or as a later layer is entered, and runs the layers that its budget pays for, selection included. Each round times every
case once, in random order, each directly after the case of all tokens; a case's ratio is the median over rounds of its
time over that neighbour's. The selectors are timed alone, too. ``--device cuda`` runs it on a GPU.

Prints a table, and the same as one JSON object on the last line.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from ada.bench.device import add_device_flag, device_named, seconds_of, wait_for
from ada.bench.models import Models, layers_that_fit
from ada.budget import LatencyBudget
from ada.image_tokens.late_selectors import FASTV_LAYER, FastV, fastv_layer
from ada.image_tokens.layout import cells_of
from ada.image_tokens.selectors import SELECTORS, Candidates, keep_encoded
from ada.image_tokens.token_scorer import TokenScorer
from ada.model.modeling import AdaLlavaLlamaForCausalLM
from llava.model.multimodal.embedded_batch import EmbeddedBatch
from llava.model.multimodal.image_spans import ImageSpan

SELECTOR_ROUNDS = 20


@dataclass
class Case:
    """One line of the table: what is left out, under which budget; seconds and ratios of all rounds."""

    image_tokens: str
    selector: str | None = None
    budget: float = 1.0
    share: float = 1.0  # of the full prefill that it takes, once it has run
    units: float = 1.0  # share of the units that ran
    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)  # to the seconds of all tokens

    @property
    def name(self) -> str:
        """What is left out, and the budget where it leaves out units too."""
        tokens = " ".join(part for part in (self.image_tokens, self.selector) if part)
        return tokens if self.budget == 1 else f"{tokens}, budget {self.budget:g}"


def default_cases(budget: float) -> list[Case]:
    """Return the cases: all tokens, depth alone, each selector at a quarter, and ways to reach ``budget``."""
    front = [Case("25%", name) for name, choose in SELECTORS.items() if choose is not keep_encoded and name != "cls"]
    late = [Case("all/25%", name) for name in ("fastv", "learned")]
    both = [Case("11%", "salient", budget), Case("25%", "salient", budget), Case("25%/11%", "salient/learned", budget)]
    return [Case("all"), Case("all", budget=0.5), *front, *late, *both]


class Prompt:
    """A prompt of text with one image in it, as embeddings of random numbers."""

    def __init__(self, model: AdaLlavaLlamaForCausalLM, text: int, image: int) -> None:
        self.model = model
        self.image = ImageSpan(text // 2, text // 2 + image)
        self.shape = (1, text + image, model.config.hidden_size)

    def batch(self) -> EmbeddedBatch:
        """Return new random embeddings (1, T, D)."""
        embeds = torch.randn(self.shape, dtype=self.model.dtype, device=self.model.device)
        return EmbeddedBatch(embeds, num_images=[1], image_spans=[[self.image]])

    def prefill(self, batch: EmbeddedBatch, case: Case) -> float:
        """Return the seconds from the prompt's embeddings to its last hidden state, the selection among them."""
        budget = LatencyBudget(case.budget)
        wait_for(self.model.device)
        start = time.perf_counter()
        reading = self.model.read_tokens(batch, case.image_tokens, case.selector, [budget])
        granted = reading.share.granted(case.budget, reading.prompts[0])
        sequence, execution = self.model.begin(
            reading.batch, torch.tensor([granted], device=self.model.device), reading=reading
        )
        inputs = {name: value for name, value in sequence.inputs().items() if name != "labels"}
        self.model.model(**inputs, use_cache=True, execution=execution)
        wait_for(self.model.device)
        seconds = time.perf_counter() - start
        case.share = reading.share.of_prefill(reading.prompts[0], granted)
        case.units = self.model.units.fraction(granted)
        return seconds


@torch.inference_mode()
def time_cases(prompt: Prompt, cases: list[Case], rounds: int) -> None:
    """Time all cases; the first one is what the others are compared with."""
    order = random.Random(0)
    for number in tqdm(range(rounds + 1), desc="rounds (the first warms up)", file=sys.stderr):
        batch = prompt.batch()  # a new image and question
        for case in order.sample(cases, len(cases)):
            full, own = prompt.prefill(batch, cases[0]), prompt.prefill(batch, case)
            if number:
                case.seconds.append(own)
                case.ratios.append(own / full)


@torch.inference_mode()
def time_selectors(prompt: Prompt, keep: int) -> dict[str, float]:
    """Return the median milliseconds of each selector alone, interleaved: front ones on an image's features.

    ``fastv`` and ``learned`` score the states of all positions; cls, prumerge and shrink act in the vision tower.
    """
    model, device = prompt.model, prompt.model.device
    batch = prompt.batch()
    features = batch.embeds[0, prompt.image.start : prompt.image.end]
    candidates = Candidates(features, cells_of(len(features)).to(device))
    ways: dict[str, Callable[[], object]] = {
        name: lambda choose=choose: choose(candidates, keep)  # type: ignore[misc]
        for name, choose in SELECTORS.items()
        if choose is not keep_encoded and name != "cls"
    }
    reads, columns = fastv_layer(model.config) - 1, torch.arange(batch.width, device=device)[None]
    layer, turns = model.model.layers[reads], model.model.rotary_emb(batch.embeds, columns)
    ways["fastv"] = lambda: FastV(reads).scores(layer, batch.embeds, {"position_embeddings": turns}).topk(keep)
    ways["learned"] = lambda: model.token_scorer(batch.embeds, batch.embeds[:, -1]).topk(keep)  # type: ignore[misc]
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(SELECTOR_ROUNDS + 2):
        for name, way in ways.items():
            spent = seconds_of(way, device)
            if number >= 2:  # the first two warm up
                seconds[name].append(spent)
    return {name: round(1000 * statistics.median(own), 3) for name, own in seconds.items()}


def show(cases: list[Case], selectors: dict[str, float], settings: dict[str, Any]) -> None:
    """Print the figures as tables."""
    console = Console(width=110)
    about = ", ".join(f"{settings[key]} {key}" for key in ("layers", "text", "image", "threads", "rounds"))
    table = Table(title=f"a stack with 7B layer shapes in bfloat16 on {settings['device']}: {about}")
    for column in ("image tokens", "share of the prefill", "units", "first token, ms", "ratio to all tokens"):
        table.add_column(column, justify="left" if column == "image tokens" else "right")
    for case in cases:
        times = f"{1000 * statistics.median(case.seconds):.0f}", f"{statistics.median(case.ratios):.3f}"
        table.add_row(case.name, f"{case.share:.3f}", f"{case.units:.3f}", *times)
    console.print(table)
    table = Table(title="a selector alone")
    for column in ("selector", "ms"):
        table.add_column(column, justify="right")
    for name, milliseconds in selectors.items():
        table.add_row(name, f"{milliseconds:g}")
    console.print(table)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this benchmark."""
    parser.add_argument("--layers", type=int, help="decoder layers; by default as many as memory allows, up to 32")
    parser.add_argument("--text", type=int, default=60, help="text positions of the prompt")
    parser.add_argument("--image", type=int, default=576, help="image tokens of the prompt")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds; medians are over these")
    parser.add_argument("--budget", type=float, default=0.22, help="share of the prefill of the cases with both dials")
    add_device_flag(parser)


def run(args: argparse.Namespace) -> None:
    """Time everything, and print it."""
    device = device_named(args.device)
    layers = args.layers or layers_that_fit(device=device)
    model = Models.make(layers, device).ada["L"]
    model.token_scorer = TokenScorer(model.config.hidden_size).to(model.device, model.dtype)
    model.config.token_scorer_layer = min(FASTV_LAYER, layers - 1)
    prompt, cases = Prompt(model, args.text, args.image), default_cases(args.budget)
    time_cases(prompt, cases, args.rounds)
    selectors = time_selectors(prompt, max(1, args.image // 4))
    settings = {
        "layers": layers,
        "dtype": "bfloat16",
        "device": args.device,
        "text": args.text,
        "image": args.image,
        "rounds": args.rounds,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    show(cases, selectors, settings)
    rows = [
        {
            "case": case.name,
            "share": round(case.share, 4),
            "units": round(case.units, 4),
            "milliseconds": round(1000 * statistics.median(case.seconds), 2),
            "ratio": round(statistics.median(case.ratios), 4),
        }
        for case in cases
    ]
    print(json.dumps({**settings, "cases": rows, "selectors_ms": selectors}))
