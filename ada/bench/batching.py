"""Times which batching pays on this device: ``python -m ada.bench batch``.

On a Llama stack with the layer shapes of a 7B model (kind H, bfloat16, without the output layer), several requests are
answered as one batch and one after the other, interleaved: their prompts are read in one prefill or in one each; then a
token of each is decoded in one step, as the worker's running batch does it (``ada.execution``), or in one step each, in
narrow layers. There are three cases of plans: every row is dense, all rows run one plan, each row runs its own.

Prints a table, and the same as one JSON object on the last line. "times faster" is above 1 where batching pays.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from tqdm import tqdm
from transformers.modeling_outputs import BaseModelOutputWithPast

from ada.bench.compare import Way, compare
from ada.bench.device import add_device_flag, device_named
from ada.bench.models import Models
from ada.execution.call_state import Execution
from ada.execution.mixed_batch import mixed_plan_batch
from ada.model.modeling import AdaLlavaLlamaForCausalLM
from llava.errors import OptionError
from llava.kv_cache import RowCache, join_rows, take_row
from llava.model.multimodal.embedded_batch import EmbeddedBatch as Prompt

OWN = (1.0, 0.85, 0.75, 0.6, 0.5)
CASES = {"dense": (1.0,), "one plan (0.6)": (0.6,), "own plans (1 to 0.5)": OWN}


class Request:
    """One prompt (1, T, D) that was read under its own plan, and its KV cache."""

    def __init__(self, model: AdaLlavaLlamaForCausalLM, embeds: torch.Tensor, budget: float) -> None:
        self.embeds, self.output, self.execution = embeds, *_prefill(model, embeds, budget)
        self.plan = self.execution.finish(1)[0]
        heads = mixed_plan_batch(model, [self.plan]).heads
        cache = self.output.past_key_values
        self.row: RowCache = take_row(cache, 0, cache.get_seq_length(), heads, heads)


def _prefill(
    model: AdaLlavaLlamaForCausalLM, embeds: torch.Tensor, budget: float
) -> tuple[BaseModelOutputWithPast, Execution]:
    """Prefill (B, T, D) embeddings under one budget; return the model's output, and the execution for decode."""
    mask = torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device)
    sequence, execution = model.begin(Prompt(embeds, mask, None, None), model.grant(budget, len(embeds)))
    return model.model(inputs_embeds=sequence.embeds, execution=execution, use_cache=True), execution


def prefills(model: AdaLlavaLlamaForCausalLM, requests: Sequence[Request], budget: float) -> dict[str, Way]:
    """Return two ways to prefill all prompts: as one batch, and one by one."""
    batch = torch.cat([request.embeds for request in requests])
    return {
        "together": lambda: _prefill(model, batch, budget),
        "apart": lambda: [_prefill(model, request.embeds, budget) for request in requests],
    }


def steps(model: AdaLlavaLlamaForCausalLM, requests: Sequence[Request]) -> dict[str, Way]:
    """Return two ways to decode a token of each request. Caches grow by a position with every call of either."""
    batch = mixed_plan_batch(model, [request.plan for request in requests])
    cache = join_rows([request.row for request in requests], batch.heads, model.config.num_key_value_heads)
    tokens = torch.zeros(len(requests), 1, dtype=torch.long, device=model.device)

    def as_one_batch() -> Any:
        return model.model(input_ids=tokens, past_key_values=cache, use_cache=True, **batch.forward_kwargs)

    def one_by_one() -> Any:
        for request in requests:
            grown = request.output.past_key_values
            model.model(input_ids=tokens[:1], past_key_values=grown, execution=request.execution, use_cache=True)

    return {"together": as_one_batch, "apart": one_by_one}


@torch.inference_mode()
def measure(
    model: AdaLlavaLlamaForCausalLM, rows: Sequence[int], positions: int, rounds: int, decode_steps: int
) -> list[dict[str, Any]]:
    """Return a line for each number of rows and case of plans: median milliseconds, and median ratios of a round."""
    rng, lines, device = random.Random(0), [], model.device
    like = torch.empty(1, positions, model.config.hidden_size, dtype=torch.bfloat16, device=device)
    for count, case in tqdm([(count, case) for count in rows for case in CASES], desc="batches", file=sys.stderr):
        budgets = [CASES[case][row % len(CASES[case])] for row in range(count)]
        prompts = [torch.randn_like(like) for _ in range(count)]
        if len(set(budgets)) == 1:  # one plan for all: each reads the same
            prompts = prompts[:1] * count
        requests = [Request(model, prompt, budget) for prompt, budget in zip(prompts, budgets, strict=True)]
        line: dict[str, Any] = {"rows": count, "plans": case}
        if len(set(budgets)) == 1:
            line["prefill"] = compare(prefills(model, requests, budgets[0]), rounds, 1, rng, device)
        line["decode"] = compare(steps(model, requests), rounds, decode_steps, rng, device)
        lines.append(line)
    return lines


def show(lines: Sequence[dict[str, Any]], title: str) -> None:
    """Print the lines as a table."""
    table = Table(title=title)
    phases = (f"{phase} together / apart, ms\n(times faster)" for phase in ("prefill", "decode"))
    for column in ("rows", "plans", *phases):
        table.add_column(column, justify="left" if column == "plans" else "right")
    for line in lines:
        cells = [_cell(line[phase]) if phase in line else "" for phase in ("prefill", "decode")]
        table.add_row(str(line["rows"]), line["plans"], *cells)
    Console(width=110).print(table)


def _cell(figures: dict[str, float]) -> str:
    return f"{figures['together_ms']:.0f} / {figures['apart_ms']:.0f} ({figures['times_faster']:.2f})"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this benchmark."""
    parser.add_argument("--layers", type=int, default=8, help="decoder layers")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8], help="sizes of the batches to time")
    parser.add_argument("--positions", type=int, default=160, help="positions of each prompt")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds; medians are over these")
    parser.add_argument("--decode-steps", type=int, default=3, help="tokens to generate in each round")
    add_device_flag(parser)


def run(args: argparse.Namespace) -> None:
    """Time everything, and print it. Raises OptionError for a number below 1."""
    if min(args.layers, args.positions, args.rounds, args.decode_steps, *args.rows) < 1:
        raise OptionError("--layers, --rows, --positions, --rounds and --decode-steps take numbers from 1 up")
    model = Models.make(args.layers, device_named(args.device)).ada["H"]
    lines = measure(model, args.rows, args.positions, args.rounds, args.decode_steps)
    settings = {"layers": args.layers, "positions": args.positions, "device": args.device}
    settings["threads"] = torch.get_num_threads()
    show(lines, ", ".join(f"{value} {name}" for name, value in settings.items()))
    print(json.dumps({**settings, "rounds": args.rounds, "torch": torch.__version__, "batches": lines}))
