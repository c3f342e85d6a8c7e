"""Times the selection of a training step against the plain way: one draw for each sample and unit."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch.nn import functional

from ada.scheduling.selection import TEMPERATURE, gumbel, select_layers, select_switches

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


def time_selection(batch: int, layers: int, switches: int, rank: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return milliseconds of forward and backward by kind, both ways interleaved, with new budgets in every round."""
    noise = gumbel()
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
            granted = torch.randint(0, units + 1, (batch,))
            logits = torch.randn(shape)
            for way, times in zip(pair, seconds, strict=True):
                spent = _forward_and_backward(way, logits, granted)
                if number >= 2:  # the first two warm up
                    times.append(spent)
        ours, plain = (statistics.median(times) * 1000 for times in seconds)
        ratio = statistics.median(b / a for a, b in zip(*seconds, strict=True))
        figures[kind] = {
            "milliseconds": round(ours, 2),
            "one_by_one_milliseconds": round(plain, 2),
            "times_faster": round(ratio, 2),
        }
    return figures


def _forward_and_backward(way: Select, logits: torch.Tensor, granted: torch.Tensor) -> float:
    leaf = logits.clone().requires_grad_()
    start = time.perf_counter()
    gates = way(leaf, granted)
    torch.autograd.backward((gates * torch.rand_like(gates)).sum())
    return time.perf_counter() - start
