"""Times what a budget saves in prefill and decode, by transformers' layers: ``python -m ada.bench prefill-decode``.

A Llama stack with the layer shapes of a 7B model (as many layers as memory allows, bfloat16, without the output layer,
which a short stack would give too much weight) runs as transformers' plain model, under the overlay at budget 1.0, and
as AdaLLaVA-L and -H at smaller budgets; the selection of a training step is timed too. Each round times every case
once, in random order, each directly after the plain model; a case's ratio is the median over rounds of its time over
that neighbour's. The plain model is a case, too: its own ratio shows the noise of the machine.

Prints a table, and the same as one JSON object on the last line.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from tqdm import tqdm
from transformers import LlamaForCausalLM
from transformers.modeling_outputs import BaseModelOutputWithPast

from ada.bench.device import add_device_flag, device_named, seconds_of, wait_for
from ada.bench.models import CPU, RANK, Models, layers_that_fit
from ada.bench.selection import time_selection
from ada.execution.call_state import Execution
from ada.model.modeling import AdaLlavaLlamaForCausalLM
from llava.model.multimodal.embedded_batch import EmbeddedBatch

BUDGETS = (0.85, 0.75, 0.6, 0.5)
PHASES = ("prefill, cold plan cache", "prefill", "decode")


@dataclass
class Case:
    """One line of the table, with the seconds of all rounds by phase."""

    name: str
    prefill: Callable[[torch.Tensor], BaseModelOutputWithPast]  # (1, T, D) embeddings -> model output, its cache filled
    decode: Callable[[BaseModelOutputWithPast, torch.Tensor], BaseModelOutputWithPast]  # and a token id (1, 1)
    share: Callable[[], float] = lambda: 1.0  # executed share of the decoder
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    ratios: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # to the plain model's seconds


class Budgeted:
    """The overlay under one budget: prefill makes the plan, and decode goes on with it."""

    def __init__(self, model: AdaLlavaLlamaForCausalLM, budget: float) -> None:
        self.model, self.granted = model, model.grant(budget, 1)
        self.execution: Execution | None = None

    def prefill(self, embeds: torch.Tensor) -> BaseModelOutputWithPast:
        """Run (1, T, D) embeddings under a new plan; return the model's output, its KV cache filled."""
        mask = torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device)
        sequence, self.execution = self.model.begin(EmbeddedBatch(embeds, mask, None, None), self.granted)
        return self.model.model(inputs_embeds=sequence.embeds, execution=self.execution, use_cache=True)

    def decode(self, state: BaseModelOutputWithPast, token: torch.Tensor) -> BaseModelOutputWithPast:
        """Run one token id (1, 1) after ``state``, the prefill's output."""
        cache = state.past_key_values
        return self.model.model(input_ids=token, past_key_values=cache, execution=self.execution, use_cache=True)

    def share(self) -> float:
        """Return the executed share of the decoder."""
        return 0.0 if self.execution is None else self.execution.finish(1)[0].share


def plain_case(model: LlamaForCausalLM) -> Case:
    """Return the case of transformers' own model."""
    return Case(
        "plain",
        lambda embeds: model.model(inputs_embeds=embeds, use_cache=True),
        lambda state, token: model.model(input_ids=token, past_key_values=state.past_key_values, use_cache=True),
    )


def overlay_cases(models: Models, budgets: tuple[float, ...]) -> Iterator[Case]:
    """Yield the cases of the overlay: each kind at budget 1 and at each of ``budgets``."""
    for kind, model in models.ada.items():
        for budget in (1.0, *budgets):
            run = Budgeted(model, budget)
            yield Case(f"{kind} {budget:g}", run.prefill, run.decode, run.share)


def time_round(cases: list[Case], embeds: torch.Tensor, decode_steps: int, order: random.Random) -> None:
    """Time every case once, in random order, each directly after a run of the plain model."""
    for case in order.sample(cases, len(cases)):
        plain = time_case(cases[0], embeds, decode_steps)
        for phase, seconds in time_case(case, embeds, decode_steps).items():
            case.seconds[phase].append(seconds)
            case.ratios[phase].append(seconds / plain[phase])


def time_case(case: Case, embeds: torch.Tensor, decode_steps: int) -> dict[str, float]:
    """Return seconds by phase. Prefill is timed with a cold and then with a warm plan cache."""
    cold, _ = _timed_prefill(case, embeds)
    warm, state = _timed_prefill(case, embeds)
    return dict(zip(PHASES, (cold, warm, _time_decode(case, state, decode_steps)), strict=True))


def _timed_prefill(case: Case, embeds: torch.Tensor) -> tuple[float, BaseModelOutputWithPast]:
    wait_for(embeds.device)
    start = time.perf_counter()
    state = case.prefill(embeds)
    wait_for(embeds.device)
    return time.perf_counter() - start, state


def _time_decode(case: Case, state: BaseModelOutputWithPast, steps: int) -> float:
    """Return the seconds of a decode step."""
    token = torch.zeros(1, 1, dtype=torch.long, device=state.last_hidden_state.device)
    return seconds_of(lambda: case.decode(state, token), token.device, steps)


def summarize(cases: list[Case]) -> list[dict[str, Any]]:
    """Return median milliseconds by phase, and the median over rounds of the ratio to the plain model."""
    rows = []
    for case in cases:
        row: dict[str, Any] = {"case": case.name, "executed_share": round(case.share(), 4)}
        for phase in PHASES:
            row[phase] = {
                "milliseconds": round(statistics.median(case.seconds[phase]) * 1000, 2),
                "ratio": round(statistics.median(case.ratios[phase]), 4),
            }
        rows.append(row)
    return rows


def show(rows: list[dict[str, Any]], selection: dict[str, dict[str, float]], settings: dict[str, Any]) -> None:
    """Print the figures as tables."""
    console = Console(width=110)
    about = ", ".join(f"{settings[key]} {key}" for key in ("layers", "positions", "threads", "rounds"))
    table = Table(title=f"a stack with 7B layer shapes in bfloat16: {about}")
    for column in ("case", "executed share", *(f"{phase}\nms (ratio to plain)" for phase in PHASES)):
        table.add_column(column, justify="left" if column == "case" else "right")
    for row in rows:
        cells = [f"{row[p]['milliseconds']:.0f} ({row[p]['ratio']:.3f})" for p in PHASES]
        table.add_row(row["case"], f"{row['executed_share']:.3f}", *cells)
    console.print(table)
    table = Table(title="selection of a training step, batch of 16, forward and backward, 7B sizes")
    for column in ("kind", "ms", "one draw a sample a unit, ms", "times faster"):
        table.add_column(column, justify="right")
    for kind, figures in selection.items():
        cells = [f"{figures[key]:.1f}" for key in ("milliseconds", "one_by_one_milliseconds", "times_faster")]
        table.add_row(kind, *cells)
    console.print(table)


@torch.inference_mode()
def time_models(
    layers: int,
    positions: int,
    rounds: int,
    decode_steps: int,
    budgets: tuple[float, ...],
    device: torch.device = CPU,
) -> list[dict[str, Any]]:
    """Make the models, warm up and time; return the rows of the table."""
    models = Models.make(layers, device)
    cases = [plain_case(models.plain), *overlay_cases(models, budgets)]
    order = random.Random(0)
    width = models.plain.config.hidden_size
    for number in tqdm(range(rounds + 1), desc="rounds (the first warms up)", file=sys.stderr):
        # A new prompt, and so new plans of kind H.
        embeds = torch.randn(1, positions, width, dtype=torch.bfloat16, device=device)
        time_round(cases, embeds, decode_steps, order)
        if number == 0:
            for case in cases:
                case.seconds.clear()
                case.ratios.clear()
    return summarize(cases)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this benchmark."""
    parser.add_argument("--layers", type=int, help="decoder layers; by default as many as memory allows, up to 32")
    parser.add_argument("--positions", type=int, default=640, help="positions of the prompt")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds; medians are over these")
    parser.add_argument(
        "--budgets", type=float, nargs="*", default=list(BUDGETS), help="budgets to time in addition to 1"
    )
    parser.add_argument("--decode-steps", type=int, default=8, help="tokens to generate for each case and round")
    add_device_flag(parser)


def run(args: argparse.Namespace) -> None:
    """Time everything, and print it."""
    device = device_named(args.device)
    settings = {
        "layers": args.layers or layers_that_fit(device=device),
        "dtype": "bfloat16",
        "device": args.device,
        "positions": args.positions,
        "rounds": args.rounds,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    selection = time_selection(batch=16, layers=16, switches=32, rank=RANK, rounds=4 * args.rounds)
    budgets = tuple(args.budgets)
    rows = time_models(settings["layers"], args.positions, args.rounds, args.decode_steps, budgets, device)
    show(rows, selection, settings)
    print(json.dumps({**settings, "cases": rows, "selection": selection}))
