"""Logits and granted units -> which switches are on: the maximum at inference, Gumbel draws in training.

Vectorised over the batch: the loop runs over units, and nothing inside it is differentiated. Gradients are taken
straight through: every draw's softmax at temperature 5 is rebuilt for all draws at once behind the loop.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

TEMPERATURE = 5.0

Noise = Callable[[tuple[int, ...]], torch.Tensor]
"""Shape of a draw (rows first) -> Gumbel noise of that shape."""

_OFF = float("-inf")


def gumbel(generator: torch.Generator | None = None, device: torch.device | str = "cpu") -> Noise:
    """Standard Gumbel noise, ``-log(E)`` with exponential E."""
    return lambda shape: -torch.empty(shape, device=device).exponential_(generator=generator).log()


def select_layers(logits: torch.Tensor, units: torch.Tensor, noise: Noise | None = None) -> torch.Tensor:
    """Kind L: exactly ``units`` (B,) of the N layers, drawn without replacement.

    logits (B, N) -> gates (B, N), 0 or 1; with noise, differentiable in the logits. A draw that no longer belongs
    to a row's budget leaves the row as it is.
    """
    batch, layers = logits.shape
    draws = int(units.max()) if batch else 0
    scores = logits.detach()
    on = torch.zeros(batch, layers, dtype=torch.bool, device=logits.device)
    off_before, noises, picks = [], [], []
    for draw in range(draws):
        row_draws = units > draw
        noisy = scores if noise is None else scores + _remember(noise((batch, layers)), noises)
        pick = noisy.masked_fill(on, _OFF).argmax(dim=1)
        off_before.append(~on)
        picks.append(pick)
        on = on | (torch.nn.functional.one_hot(pick, layers).bool() & row_draws[:, None])
    if noise is None or not draws:
        return on.to(logits.dtype)
    soft = _soft(logits[:, None], noises, off_before)  # (B, draws, N)
    soft = soft * _drawn(units, draws)[..., None]
    return _straight_through(on, soft.sum(dim=1))


def select_switches(
    logits: torch.Tensor, units: torch.Tensor, rank: int, noise: Noise | None = None
) -> torch.Tensor:
    """Kind H: once per unit, one switch among all that are off names a layer; there the ``rank`` best heads and
    the ``rank`` best neuron groups that are off go on.

    logits (B, N, 2, A), units (B,) -> gates (B, N, 2, A), 0 or 1; with noise, differentiable in the logits. A unit's
    gates are the outer product of two relaxed draws: which layer, and which switches by the drawn layer's logits.
    """
    batch, layers, sorts, switches = logits.shape
    draws = int(units.max()) if batch else 0
    scores = logits.detach()
    rows = torch.arange(batch, device=logits.device)
    on = torch.zeros_like(scores, dtype=torch.bool)
    steps: list[tuple[torch.Tensor, ...]] = []
    for draw in range(draws):
        named = scores if noise is None else scores + noise((batch, layers, sorts, switches))
        named = named.masked_fill(on, _OFF)
        layer = named.flatten(1).argmax(dim=1) // (sorts * switches)
        on_here = on[rows, layer]  # (B, 2, A)
        extra = None if noise is None else noise((batch, sorts, switches))
        here = scores[rows, layer] if extra is None else scores[rows, layer] + extra
        best = here.masked_fill(on_here, _OFF).topk(rank, dim=-1).indices
        picked = torch.zeros_like(on_here).scatter(-1, best, True) & (units > draw)[:, None, None]
        on = on.index_put((rows, layer), on_here | picked)
        if extra is not None:
            steps.append((named - scores, layer, extra, on_here, picked))
    if not steps:
        return on.to(logits.dtype)
    named_noise, layer, extra, on_here, picked = (torch.stack(part, dim=1) for part in zip(*steps, strict=True))
    relaxed = torch.softmax((logits[:, None] + named_noise).flatten(2) / TEMPERATURE, dim=-1)
    weight = _straight_through(
        torch.nn.functional.one_hot(layer, layers), relaxed.unflatten(2, (layers, -1)).sum(dim=-1)
    )  # (B, draws, N)
    here = torch.einsum("btn,bnsa->btsa", weight, logits) + extra
    soft = torch.softmax((here / TEMPERATURE).masked_fill(on_here, _OFF), dim=-1)
    soft = soft * _drawn(units, draws)[..., None, None]
    return torch.einsum("btn,btsa->bnsa", weight, _straight_through(picked, soft))


def _remember(noise: torch.Tensor, noises: list[torch.Tensor]) -> torch.Tensor:
    noises.append(noise)
    return noise


def _drawn(units: torch.Tensor, draws: int) -> torch.Tensor:
    """(B, draws): which draws belong to a row's budget."""
    return torch.arange(draws, device=units.device) < units[:, None]


def _soft(logits: torch.Tensor, noises: list[torch.Tensor], off_before: list[torch.Tensor]) -> torch.Tensor:
    """The relaxed draws: softmax over the switches that were off, draws stacked on dimension 1."""
    noisy = logits + torch.stack(noises, dim=1)
    return torch.softmax((noisy / TEMPERATURE).masked_fill(~torch.stack(off_before, dim=1), _OFF), dim=-1)


def _straight_through(hard: torch.Tensor, soft: torch.Tensor) -> torch.Tensor:
    """The hard gates' value with the soft gates' gradient. Written so that the value is exact: 0 or 1."""
    return hard.to(soft.dtype) + (soft - soft.detach())
