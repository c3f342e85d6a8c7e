"""Which batching pays on this device: ``python -m ada.bench batch``.

On a Llama stack with the layer shapes of a 7B model (kind H, bfloat16, output layer left out), so many requests are
answered together and one after the other, interleaved: their prompts read in one prefill or in one each; then a token
of each decoded in one step, as the worker's running batch does it (``ada.execution``), or in a step of its own, in
narrow layers. Three cases of plans: every row runs the whole model, all rows run one plan, each row runs its own.

Prints a table, and the same as one JSON object on the last line. "times faster" is above 1 where batching pays.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from ada.execution.mixed_batch import mixed_plan_batch
from ada.scheduling.latency_token import EmbeddedBatch as Prompt
from llava.errors import OptionError
from llava.kv_cache import RowCache, join_rows, take_row
from llava.program import run_program

OWN = (1.0, 0.85, 0.75, 0.6, 0.5)
CASES = {"whole model": (1.0,), "one plan (0.6)": (0.6,), "own plans (1 to 0.5)": OWN}
Way = Callable[[], Any]


class Request:
    """One prompt (1, T, D) that was read under its own plan, and its cache."""

    def __init__(self, model: Any, embeds: torch.Tensor, budget: float) -> None:
        self.embeds, self.output, self.execution = embeds, *_read(model, embeds, budget)
        self.plan = self.execution.finish(1)[0]
        heads = mixed_plan_batch(model, [self.plan]).heads
        cache = self.output.past_key_values
        self.row: RowCache = take_row(cache, 0, cache.get_seq_length(), heads, heads)


def _read(model: Any, embeds: torch.Tensor, budget: float) -> tuple[Any, Any]:
    """Prefill of (B, T, D) embeddings under one budget: the model's output, and the execution that goes on."""
    mask = torch.ones(embeds.shape[:2], dtype=torch.long)
    sequence, execution = model.begin(Prompt(embeds, mask, None, None), model.grant(budget, len(embeds)))
    return model.model(inputs_embeds=sequence.embeds, execution=execution, use_cache=True), execution


def prefills(model: Any, requests: Sequence[Request], budget: float) -> dict[str, Way]:
    """Reading all prompts, in two ways."""
    batch = torch.cat([request.embeds for request in requests])
    return {
        "together": lambda: _read(model, batch, budget),
        "apart": lambda: [_read(model, request.embeds, budget) for request in requests],
    }


def steps(model: Any, requests: Sequence[Request]) -> dict[str, Way]:
    """Decoding a token of each, in two ways. Caches grow by a position with every call, in both alike."""
    way = mixed_plan_batch(model, [request.plan for request in requests])
    cache = join_rows([request.row for request in requests], way.heads, model.config.num_key_value_heads)
    tokens = torch.zeros(len(requests), 1, dtype=torch.long)

    def together() -> Any:
        return model.model(input_ids=tokens, past_key_values=cache, use_cache=True, **way.forward_kwargs)

    def apart() -> Any:
        for request in requests:
            grown = request.output.past_key_values
            model.model(input_ids=tokens[:1], past_key_values=grown, execution=request.execution, use_cache=True)

    return {"together": together, "apart": apart}


@torch.inference_mode()
def measure(model: Any, rows: Sequence[int], positions: int, rounds: int, decode_steps: int) -> list[dict[str, Any]]:
    """A line for every number of rows and case of plans: median milliseconds, and the median ratio of a round."""
    order, lines = random.Random(0), []
    places = [(count, case) for count in rows for case in CASES]
    for count, case in tqdm(places, desc="batches", file=sys.stderr):
        budgets = [CASES[case][place % len(CASES[case])] for place in range(count)]
        prompts = [torch.randn(1, positions, model.config.hidden_size, dtype=torch.bfloat16) for _ in range(count)]
        if len(set(budgets)) == 1:  # one plan for all: each reads the same
            prompts = prompts[:1] * count
        requests = [Request(model, prompt, budget) for prompt, budget in zip(prompts, budgets, strict=True)]
        line: dict[str, Any] = {"rows": count, "plans": case}
        if len(set(budgets)) == 1:
            line["prefill"] = _compare(prefills(model, requests, budgets[0]), rounds, 1, order)
        line["decode"] = _compare(steps(model, requests), rounds, decode_steps, order)
        lines.append(line)
    return lines


def _compare(ways: dict[str, Way], rounds: int, repeats: int, order: random.Random) -> dict[str, float]:
    seconds: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds + 1):  # the first warms up
        for name in order.sample(sorted(ways), len(ways)):
            start = time.perf_counter()
            for _ in range(repeats):
                ways[name]()
            if number:
                seconds[name].append((time.perf_counter() - start) / repeats)
    ratios = [apart / together for apart, together in zip(seconds["apart"], seconds["together"], strict=True)]
    medians = {f"{name}_ms": round(1000 * statistics.median(seconds[name]), 2) for name in ways}
    return {**medians, "times_faster": round(statistics.median(ratios), 3)}


def show(lines: Sequence[dict[str, Any]], title: str) -> None:
    """The table for people."""
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


def main(make_model: Callable[[int], Any], arguments: list[str]) -> int:
    """The program; ``make_model``: layers -> a model of kind H. The exit code: 2 for what the user can mend."""
    parser = argparse.ArgumentParser(
        prog="python -m ada.bench batch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=8, help="decoder layers")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8], help="requests at a time")
    parser.add_argument("--positions", type=int, default=160, help="prompt positions")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds; medians are over these")
    parser.add_argument("--decode-steps", type=int, default=3, help="tokens a round")
    args = parser.parse_args(arguments)

    def work() -> None:
        if min(args.layers, args.positions, args.rounds, args.decode_steps, *args.rows) < 1:
            raise OptionError("--layers, --rows, --positions, --rounds and --decode-steps take numbers from 1 up")
        lines = measure(make_model(args.layers), args.rows, args.positions, args.rounds, args.decode_steps)
        facts = {"layers": args.layers, "positions": args.positions, "threads": torch.get_num_threads()}
        show(lines, ", ".join(f"{value} {name}" for name, value in facts.items()))
        print(json.dumps({**facts, "rounds": args.rounds, "torch": torch.__version__, "batches": lines}))

    return run_program(work)
