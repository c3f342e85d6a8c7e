"""Times the choice of a plan against the plain way, one unit after the other: ``python -m ada.bench selection``.

At inference a plan of kind H is chosen from random scores, for one request and for several, at three shares of all
units. In training (a batch of 16, forward and backward) the plain way draws for each sample and unit. Both ways are
interleaved, and get the same scores.

Prints a table, and the same as one JSON object on the last line.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional

from ada.bench.compare import CPU
from ada.bench.device import add_device_flag, device_named, seconds_of
from ada.scheduling.selection import TEMPERATURE, gumbel, select_layers, select_switches
from llava.errors import OptionError

SHARES = (0.5, 0.75, 0.85)

Select = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # logits and granted units (B,) -> gates


def layers_one_by_one(logits: torch.Tensor, granted: torch.Tensor) -> torch.Tensor:
    """Select for kind L, a sample and a unit at a time: logits (B, N) -> gates (B, N)."""
    rows = []
    for scores, units in zip(logits, granted.tolist(), strict=True):
        gates = torch.zeros_like(scores)
        for _ in range(units):
            off = scores.masked_fill(gates.detach() > 0, float("-inf"))
            gates = gates + functional.gumbel_softmax(off, tau=TEMPERATURE, hard=True)
        rows.append(gates)
    return torch.stack(rows)


def switches_one_by_one(logits: torch.Tensor, granted: torch.Tensor, rank: int) -> torch.Tensor:
    """Select for kind H, a sample and a unit at a time: logits (B, N, 2, A) -> gates (B, N, 2, A)."""
    rows = []
    for scores, units in zip(logits, granted.tolist(), strict=True):
        gates = torch.zeros_like(scores)
        for _ in range(units):
            off = scores.masked_fill(gates.detach() > 0, float("-inf"))
            draw = functional.gumbel_softmax(off.flatten(), tau=TEMPERATURE, hard=True)
            layer = draw.view_as(scores).sum(dim=(1, 2))  # (N,)
            here = torch.einsum("n,nsa->sa", layer, scores)
            taken = torch.einsum("n,nsa->sa", layer.detach(), gates.detach()) > 0
            soft = functional.gumbel_softmax(here.masked_fill(taken, float("-inf")), tau=TEMPERATURE)
            hard = torch.zeros_like(soft).scatter(-1, soft.topk(rank, dim=-1).indices, 1.0)
            gates = gates + layer[:, None, None] * (hard + soft - soft.detach())
        rows.append(gates)
    return torch.stack(rows)


def best_one_by_one(scores: torch.Tensor, granted: torch.Tensor, rank: int) -> torch.Tensor:
    """Select for inference, a unit at a time: scores (B, N, 2, A) -> gates (B, N, 2, A); of equal scores the first."""
    rows, on = torch.arange(len(scores)), torch.zeros_like(scores, dtype=torch.bool)
    for unit in range(int(granted.max())):
        layer = scores.masked_fill(on, float("-inf")).flatten(1).argmax(dim=1) // scores[0, 0].numel()
        off = scores[rows, layer].masked_fill(on[rows, layer], float("-inf"))
        best = off.sort(dim=-1, descending=True, stable=True).indices[..., :rank]
        picked = torch.zeros_like(off, dtype=torch.bool).scatter(-1, best, True)
        on[rows, layer] |= picked & (granted > unit)[:, None, None]
    return on.to(scores.dtype)


def time_inference(
    batch: int, layers: int, switches: int, rank: int, rounds: int, device: torch.device = CPU
) -> dict[str, dict[str, float]]:
    """Return milliseconds of choosing plans of kind H, by the share of all units, both ways interleaved."""
    figures = {}
    for share in SHARES:
        granted = torch.full((batch,), int(share * layers * switches // rank), device=device)
        ours, plain = [], []
        for number in range(rounds + 2):
            scores = torch.randn(batch, layers, 2, switches, device=device)
            seconds = [
                seconds_of(partial(way, scores, granted, rank), device) for way in (select_switches, best_one_by_one)
            ]
            if number >= 2:  # the first two warm up
                ours.append(seconds[0])
                plain.append(seconds[1])
        figures[f"{share:g}"] = _figures(ours, plain, digits=3)
    return figures


def _figures(ours: list[float], plain: list[float], digits: int = 2) -> dict[str, float]:
    """Medians in milliseconds of seconds, and the median ratio of a round."""
    return {
        "milliseconds": round(statistics.median(ours) * 1000, digits),
        "one_by_one_milliseconds": round(statistics.median(plain) * 1000, digits),
        "times_faster": round(statistics.median(b / a for a, b in zip(ours, plain, strict=True)), 2),
    }


def time_selection(
    batch: int, layers: int, switches: int, rank: int, rounds: int, device: torch.device = CPU
) -> dict[str, dict[str, float]]:
    """Return milliseconds of forward and backward by kind, both ways interleaved, with new budgets in every round."""
    noise = gumbel(device=device)
    ways: dict[str, tuple[tuple[int, ...], int, list[Select]]] = {
        "L": ((batch, layers), layers, [lambda x, k: select_layers(x, k, noise), layers_one_by_one]),
        "H": (
            (batch, layers, 2, switches),
            layers * switches // rank,
            [lambda x, k: select_switches(x, k, rank, noise), lambda x, k: switches_one_by_one(x, k, rank)],
        ),
    }
    figures = {}
    for kind, (shape, units, pair) in ways.items():
        seconds: tuple[list[float], list[float]] = ([], [])
        for number in range(rounds + 2):
            granted = torch.randint(0, units + 1, (batch,), device=device)
            logits = torch.randn(shape, device=device)
            for way, times in zip(pair, seconds, strict=True):
                spent = _forward_and_backward(way, logits, granted)
                if number >= 2:  # the first two warm up
                    times.append(spent)
        figures[kind] = _figures(*seconds)
    return figures


def _forward_and_backward(way: Select, logits: torch.Tensor, granted: torch.Tensor) -> float:
    leaf = logits.clone().requires_grad_()

    def both() -> None:
        gates = way(leaf, granted)
        torch.autograd.backward((gates * torch.rand_like(gates)).sum())

    return seconds_of(both, logits.device)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this benchmark."""
    parser.add_argument("--layers", type=int, default=32, help="tunable layers")
    parser.add_argument("--switches", type=int, default=32, help="heads, and neuron groups, of a layer")
    parser.add_argument("--rank", type=int, default=8, help="heads, and neuron groups, of a unit")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8], help="requests whose plans are chosen at once")
    parser.add_argument("--rounds", type=int, default=30, help="timed rounds; medians are over these")
    add_device_flag(parser)


def run(args: argparse.Namespace) -> None:
    """Time everything, and print it. Raises OptionError for sizes that make no grid."""
    if min(args.layers, args.switches, args.rank, args.rounds, *args.rows) < 1 or args.switches % args.rank:
        raise OptionError(
            f"--rank is {args.rank} of --switches {args.switches}; expected a divisor, and --layers, --rows and "
            "--rounds from 1 up"
        )
    sizes = {"layers": args.layers, "switches": args.switches, "rank": args.rank}
    rounds, device = args.rounds, device_named(args.device)
    inference = {str(rows): time_inference(rows, **sizes, rounds=rounds, device=device) for rows in args.rows}
    training = time_selection(16, **sizes, rounds=max(1, rounds // 3), device=device)
    table = Table(title=", ".join(f"{value} {name}" for name, value in sizes.items()))
    for column in ("what", "ms", "one by one, ms", "times faster"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for rows, shares in inference.items():
        for share, figures in shares.items():
            _add_line(table, f"inference, {rows} at once, share {share}", figures)
    for kind, figures in training.items():
        _add_line(table, f"training, 16 at once, kind {kind}", figures)
    Console(width=110).print(table)
    settings: dict[str, Any] = {**sizes, "rounds": rounds, "device": args.device, "threads": torch.get_num_threads()}
    print(json.dumps({**settings, "torch": torch.__version__, "inference": inference, "training": training}))


def _add_line(table: Table, what: str, figures: dict[str, float]) -> None:
    cells = [f"{figures['milliseconds']:.2f}", f"{figures['one_by_one_milliseconds']:.2f}"]
    table.add_row(what, *cells, f"{figures['times_faster']:.1f}")
