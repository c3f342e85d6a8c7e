"""Times 8-bit weights against bfloat16, dense and cut to a plan: ``python -m ada.bench quantized``.

A stack of decoder layers with the shapes of a 7B model runs in the engine, once as it is and once with its weights in
int8, as ``--load-8bit`` makes them. Every round reads a prompt with each of both under every budget, in random order,
its plan being cut already; then all decode token after token in turns. A ratio is the median of int8's times over those
of bfloat16 at the same prompt or token, at the same budget and, for decoding, also at budget 1.

Prints a table, and the same as one JSON object on the last line. Ratios below 1 are in favour of int8.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from ada.bench import models
from ada.config import AdaLlavaConfig
from ada.engine.engine_rows import EngineRows
from ada.model.modeling import AdaLlavaLlamaForCausalLM
from llava.errors import OptionError
from llava.model.int8_linear import quantise_int8
from llava.model.multimodal.embedded_batch import EmbeddedBatch

KINDS = ("bfloat16", "int8")
TOKEN = torch.zeros(1, dtype=torch.long)


@dataclass
class Case:
    """One model under one budget, with the milliseconds of all prompts and tokens."""

    model: AdaLlavaLlamaForCausalLM
    budget: float
    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    rows: EngineRows = field(init=False)  # of the round's prompt

    def read(self, embeds: torch.Tensor) -> None:
        """Read a prompt (1, T, D) twice, the second time with its plan cut, and start to decode after it."""
        granted = self.model.grant(self.budget, 1)
        for _ in range(2):
            batch, execution = self.model.begin(EmbeddedBatch(embeds, None, None, None), granted)
            self.rows = EngineRows(self.model, 1, embeds)
            start = time.perf_counter()
            self.rows.read(batch, execution)
            elapsed = time.perf_counter() - start
        self.prefill.append(1000 * elapsed)
        self.rows.step(TOKEN)  # makes what the other steps use again

    def step(self) -> None:
        """Decode one token, and keep its time."""
        start = time.perf_counter()
        self.rows.step(TOKEN)
        self.decode.append(1000 * (time.perf_counter() - start))


def make_stacks(layers: int) -> dict[str, AdaLlavaLlamaForCausalLM]:
    """Make a stack with 7B shapes and random weights in bfloat16, and the same in int8; neither with much vocabulary.

    A short stack would give the output layer, which stays in bfloat16, too much weight.
    """
    sizes = {**models.SHAPES_7B, "num_hidden_layers": layers, "vocab_size": 64, "pad_token_id": 0}
    config = AdaLlavaConfig(
        **sizes, num_prefix_layers=1, scheduler_type="H", scheduler_rank=models.RANK, dtype="bfloat16"
    )
    torch.manual_seed(0)
    plain = AdaLlavaLlamaForCausalLM._from_config(config, dtype=torch.bfloat16).eval()
    rounded = copy.deepcopy(plain)
    quantise_int8(rounded, rounded.never_quantised)
    return dict(zip(KINDS, (plain, rounded), strict=True))


@torch.inference_mode()
def measure(
    stacks: Mapping[str, AdaLlavaLlamaForCausalLM], budgets: Sequence[float], positions: int, rounds: int, steps: int
) -> list[dict[str, Any]]:
    """Return a line for each budget: median milliseconds by phase and kind, and median ratios of a round."""
    cases = {(kind, budget): Case(model, budget) for kind, model in stacks.items() for budget in (1.0, *budgets)}
    order, width = random.Random(0), stacks["int8"].config.hidden_size
    for number in tqdm(range(rounds + 1), desc="rounds (the first warms up)", file=sys.stderr):
        embeds = torch.randn(1, positions, width, dtype=torch.bfloat16)
        for case in order.sample([*cases.values()], len(cases)):
            case.read(embeds)
        for _ in range(steps):
            for case in order.sample([*cases.values()], len(cases)):
                case.step()
        if number == 0:
            for case in cases.values():
                case.prefill.clear()
                case.decode.clear()
    dense = cases["bfloat16", 1.0]
    return [line(budget, cases["bfloat16", budget], cases["int8", budget], dense) for budget in (1.0, *budgets)]


def line(budget: float, plain: Case, rounded: Case, dense: Case) -> dict[str, Any]:
    """Return the figures of a budget. dense: bfloat16 at budget 1."""
    figures: dict[str, Any] = {"budget": budget}
    for phase in ("prefill", "decode"):
        times = [getattr(case, phase) for case in (plain, rounded)]
        medians = {f"{kind}_ms": round(statistics.median(own), 2) for kind, own in zip(KINDS, times, strict=True)}
        figures[phase] = {**medians, "ratio": _ratio(times[1], times[0])}
    return {**figures, "decode_over_dense_bfloat16": _ratio(rounded.decode, dense.decode)}


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return round(statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True)), 3)


def show(lines: Sequence[Mapping[str, Any]], title: str) -> None:
    """Print the lines as a table."""
    table = Table(title=title)
    phases = [f"{phase}, bfloat16 / int8, ms\n(ratio)" for phase in ("prefill", "decode")]
    for column in ("budget", *phases, "decode, int8 over\ndense bfloat16"):
        table.add_column(column, justify="right")
    for one in lines:
        both = (one["prefill"], one["decode"])
        times = [f"{own['bfloat16_ms']:.1f} / {own['int8_ms']:.1f} ({own['ratio']:.2f})" for own in both]
        table.add_row(f"{one['budget']:g}", *times, f"{one['decode_over_dense_bfloat16']:.2f}")
    Console(width=110).print(table)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this benchmark."""
    parser.add_argument("--budgets", type=float, nargs="*", default=[0.5], help="budgets to time in addition to 1")
    parser.add_argument("--layers", type=int, default=4, help="decoder layers of the stack")
    parser.add_argument("--positions", type=int, default=640, help="positions of the prompt")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds; medians are over these")
    parser.add_argument("--decode-steps", type=int, default=8, help="tokens to generate for each case and round")


def run(args: argparse.Namespace) -> None:
    """Time everything, and print it. Raises OptionError for numbers that cannot be timed."""
    if min(args.positions, args.rounds, args.decode_steps) < 1 or args.layers < 2:
        raise OptionError("--positions, --rounds and --decode-steps take numbers from 1 up, --layers from 2 up")
    if not all(0 < budget < 1 for budget in args.budgets):
        raise OptionError("--budgets takes numbers between 0 and 1")
    lines = measure(make_stacks(args.layers), args.budgets, args.positions, args.rounds, args.decode_steps)
    settings = {"layers": args.layers, "positions": args.positions, "threads": torch.get_num_threads()}
    show(lines, "a stack with 7B layer shapes, " + ", ".join(f"{value} {name}" for name, value in settings.items()))
    print(json.dumps({**settings, "rounds": args.rounds, "torch": torch.__version__, "budgets": lines}))
