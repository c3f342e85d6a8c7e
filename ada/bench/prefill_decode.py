"""What a budget saves in time: ``python -m ada.bench``.

Times a Llama stack with the layer shapes of a 7B model (as many layers as memory allows, bfloat16; the output layer,
which a short stack would give too much weight, is left out): the plain transformers model, the overlay at budget 1.0,
and AdaLLaVA-L and -H at smaller budgets, in prefill and decode; and the selection of a training step. Everything is
interleaved in one run: each round times every case once, in random order, each right behind the plain model; a case's
ratio is the median over rounds of its time over that neighbour's. The plain model is a case, too: its own ratio tells
how noisy the machine was.

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

import psutil
import torch
from rich.console import Console
from rich.table import Table
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from ada.bench import adherence as bench_adherence
from ada.bench import batching as bench_batch
from ada.bench import quantized as bench_quantised
from ada.bench.selection import time_selection
from ada.config import AdaLlavaConfig
from ada.model.modeling import AdaLlavaLlamaForCausalLM
from llava.model.multimodal.embedded_batch import EmbeddedBatch

SHAPES_7B = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
}
RANK = 8
BUDGETS = (0.85, 0.75, 0.6, 0.5)
LAYER_BYTES = 2 * (4 * 4096**2 + 3 * 4096 * 11008)  # bfloat16
PHASES = ("prefill, plan first seen", "prefill", "decode")
MEMORY_SHARE = 0.6  # of what is free, for weights and their narrow copies


def layers_that_fit(most: int = 32) -> int:
    """An even number of layers whose weights, and narrow copies of their second half, fit in free memory."""
    return max(2, min(most, int(MEMORY_SHARE * psutil.virtual_memory().available / (1.5 * LAYER_BYTES)) // 2 * 2))


@dataclass
class Models:
    """Three views of the same weights: transformers' plain model, and the overlay with either scheduler."""

    plain: Any
    ada: dict[str, Any]

    @classmethod
    def make(cls, layers: int) -> Models:
        """Random weights, made once and shared."""
        sizes = {**SHAPES_7B, "num_hidden_layers": layers, "pad_token_id": 0}
        torch.manual_seed(0)
        plain = LlamaForCausalLM._from_config(LlamaConfig(**sizes), dtype=torch.bfloat16).eval()
        return cls(plain, {kind: cls._overlaid(plain, kind, sizes) for kind in ("L", "H")})

    @staticmethod
    def _overlaid(plain: Any, kind: str, sizes: dict[str, int]) -> Any:
        config = AdaLlavaConfig(**sizes, scheduler_type=kind, scheduler_rank=RANK, dtype="bfloat16")
        with torch.device("meta"):
            model = AdaLlavaLlamaForCausalLM(config)
        keys = {key: value.shape for key, value in model.state_dict().items() if key.startswith("scheduler.")}
        scheduler = {key: 0.02 * torch.randn(shape, dtype=torch.bfloat16) for key, shape in keys.items()}
        state = plain.state_dict() | scheduler
        model.load_state_dict(state, assign=True)
        model.model.rotary_emb = plain.model.rotary_emb  # its buffers are not in the state dict
        return model.eval()


@dataclass
class Case:
    """One line of the table; seconds are gathered over the rounds."""

    name: str
    prefill: Callable[[torch.Tensor], Any]  # (1, T, D) embeddings -> model output, its cache filled
    decode: Callable[[Any, torch.Tensor], Any]  # the prefill's result and a token id (1, 1) -> model output
    share: Callable[[], float] = lambda: 1.0  # executed share of the decoder
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    ratios: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # to the plain model's seconds


class Budgeted:
    """The overlay under one budget: prefill decides and keeps the execution, decode goes on with it."""

    def __init__(self, model: Any, budget: float) -> None:
        self.model, self.granted = model, model.grant(budget, 1)
        self.execution: Any = None

    def prefill(self, embeds: torch.Tensor) -> Any:
        mask = torch.ones(embeds.shape[:2], dtype=torch.long)
        sequence, self.execution = self.model.begin(EmbeddedBatch(embeds, mask, None, None), self.granted)
        return self.model.model(inputs_embeds=sequence.embeds, execution=self.execution, use_cache=True)

    def decode(self, state: Any, token: torch.Tensor) -> Any:
        cache = state.past_key_values
        return self.model.model(input_ids=token, past_key_values=cache, execution=self.execution, use_cache=True)

    def share(self) -> float:
        return self.execution.finish(1)[0].share


def plain_case(model: Any) -> Case:
    """transformers' own model."""
    return Case(
        "plain",
        lambda embeds: model.model(inputs_embeds=embeds, use_cache=True),
        lambda state, token: model.model(input_ids=token, past_key_values=state.past_key_values, use_cache=True),
    )


def overlay_cases(models: Models, budgets: tuple[float, ...]) -> Iterator[Case]:
    """The overlay whole, and each kind at each budget."""
    for kind, model in models.ada.items():
        for budget in (1.0, *budgets):
            run = Budgeted(model, budget)
            yield Case(f"{kind} {budget:g}", run.prefill, run.decode, run.share)


def time_round(cases: list[Case], embeds: torch.Tensor, decode_steps: int, order: random.Random) -> None:
    """Every case once, in random order, behind a run of the plain model that is timed in the same way."""
    for case in order.sample(cases, len(cases)):
        plain = time_case(cases[0], embeds, decode_steps)
        for phase, seconds in time_case(case, embeds, decode_steps).items():
            case.seconds[phase].append(seconds)
            case.ratios[phase].append(seconds / plain[phase])


def time_case(case: Case, embeds: torch.Tensor, decode_steps: int) -> dict[str, float]:
    """Seconds by phase. Prefill is timed twice: this prompt's plan is new, then it is known."""
    first, _ = _timed_prefill(case, embeds)
    known, state = _timed_prefill(case, embeds)
    return dict(zip(PHASES, (first, known, _time_decode(case, state, decode_steps)), strict=True))


def _timed_prefill(case: Case, embeds: torch.Tensor) -> tuple[float, Any]:
    start = time.perf_counter()
    state = case.prefill(embeds)
    return time.perf_counter() - start, state


def _time_decode(case: Case, state: Any, steps: int) -> float:
    """Seconds a token."""
    token = torch.zeros(1, 1, dtype=torch.long)
    start = time.perf_counter()
    for _ in range(steps):
        case.decode(state, token)
    return (time.perf_counter() - start) / steps


def summarise(cases: list[Case]) -> list[dict[str, Any]]:
    """Median seconds, and the median over rounds of the ratio to the plain model, by phase."""
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


def show(rows: list[dict[str, Any]], selection: dict[str, dict[str, float]], facts: dict[str, Any]) -> None:
    """The tables for people."""
    console = Console(width=110)
    about = ", ".join(f"{facts[key]} {key}" for key in ("layers", "positions", "threads", "rounds"))
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
        table.add_row(
            kind,
            f"{figures['milliseconds']:.1f}",
            f"{figures['one_by_one_milliseconds']:.1f}",
            f"{figures['times_faster']:.1f}",
        )
    console.print(table)


@torch.inference_mode()
def time_models(layers: int, positions: int, rounds: int, decode_steps: int, budgets: tuple[float, ...]) -> list[Any]:
    """Build, warm up, and time; the rows of the table."""
    models = Models.make(layers)
    cases = [plain_case(models.plain), *overlay_cases(models, budgets)]
    order = random.Random(0)
    width = models.plain.config.hidden_size
    for number in tqdm(range(rounds + 1), desc="rounds (the first warms up)", file=sys.stderr):
        embeds = torch.randn(1, positions, width, dtype=torch.bfloat16)  # a new prompt, and so new plans of kind H
        time_round(cases, embeds, decode_steps, order)
        if number == 0:
            for case in cases:
                case.seconds.clear()
                case.ratios.clear()
    return summarise(cases)


def main() -> None:
    """The command line; with ``adherence``, ``batch`` or ``quantised`` in front it is that of
    ``ada.bench.adherence``, ``_batch`` or ``_quantised``."""
    if sys.argv[1:2] == ["adherence"]:
        raise SystemExit(bench_adherence.main(sys.argv[2:]))
    if sys.argv[1:2] == ["batch"]:
        raise SystemExit(bench_batch.main(lambda layers: Models.make(layers).ada["H"], sys.argv[2:]))
    if sys.argv[1:2] == ["quantised"]:
        raise SystemExit(bench_quantised.main(sys.argv[2:]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, help="decoder layers; by default what memory allows, up to 32")
    parser.add_argument("--positions", type=int, default=640, help="prompt positions")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds; medians are over these")
    parser.add_argument("--budgets", type=float, nargs="*", default=list(BUDGETS), help="beside 1")
    parser.add_argument("--decode-steps", type=int, default=8, help="tokens generated a case and round")
    args = parser.parse_args()
    layers = args.layers or layers_that_fit()
    facts = {
        "layers": layers,
        "dtype": "bfloat16",
        "positions": args.positions,
        "rounds": args.rounds,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    selection = time_selection(batch=16, layers=16, switches=32, rank=RANK, rounds=4 * args.rounds)
    rows = time_models(layers, args.positions, args.rounds, args.decode_steps, tuple(args.budgets))
    show(rows, selection, facts)
    print(json.dumps({**facts, "cases": rows, "selection": selection}))


if __name__ == "__main__":
    main()
