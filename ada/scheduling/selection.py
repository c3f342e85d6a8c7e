"""Selects which switches are on from logits and granted units: the maximum at inference, Gumbel draws in training.

At inference two sorts decide for all units at once. They are stable, so that equal logits are taken by index: the same
on every device and in every batch.

Training takes two steps. A draw, vectorised over the batch in a loop over units, decides what is on; nothing in it is
differentiated. Its record is then relaxed: every draw's softmax at temperature 5 is rebuilt for all draws at once, and
gradients are passed straight through it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

TEMPERATURE = 5.0

Noise = Callable[[tuple[int, ...]], torch.Tensor]
"""Shape of a draw (rows first) -> Gumbel noise of that shape."""

_OFF = float("-inf")


def gumbel(generator: torch.Generator | None = None, device: torch.device | str = "cpu") -> Noise:
    """Return standard Gumbel noise from one generator, by default torch's own."""
    return lambda shape: gumbel_of(torch.rand(shape, device=device, generator=generator))


def on_device(noise: Noise, device: torch.device) -> Noise:
    """Return noise that is drawn as ``noise`` draws it, and moved to ``device``."""
    return lambda shape: noise(shape).to(device)


def gumbel_of(uniform: torch.Tensor) -> torch.Tensor:
    """Turn uniform draws U in [0, 1), which are overwritten, into standard Gumbel noise.

    It is ``-log(E)`` with exponential ``E = -log(1 - U)``; torch's own exponential draws are ten times slower on a CPU,
    and so is ``log1p``. ``U`` steps by 2**-24: ``1 - U`` is exact, and half a step keeps E from being 0.
    """
    return uniform.neg_().add_(1).log_().neg_().clamp_min_(2**-25).log_().neg_()


def select_layers(logits: torch.Tensor, units: torch.Tensor, noise: Noise | None = None) -> torch.Tensor:
    """Select exactly ``units`` (B,) of the N layers, drawn without replacement (kind L).

    logits (B, N) -> gates (B, N), 0 or 1; with noise, differentiable in the logits. A draw that no longer belongs
    to a row's budget leaves the row as it is.
    """
    if noise is None:
        return (_ranks(logits.detach()) < units[:, None]).to(logits.dtype)
    drawn = _draw_layers(logits.detach(), units, noise)
    if not drawn.noise:
        return _straight_through(drawn.on, logits * 0)
    noisy = logits[:, None] + torch.stack(drawn.noise, dim=1)
    soft = torch.softmax((noisy / TEMPERATURE).masked_fill(torch.stack(drawn.on_before, dim=1), _OFF), dim=-1)
    soft = soft * _belongs(units, len(drawn.noise))[..., None]  # (B, draws, N)
    return _straight_through(drawn.on, soft.sum(dim=1))


@dataclass
class _LayerDraws:
    """What was drawn: ``on`` (B, N); for each draw its noise (B, N), and what was on before it (B, N)."""

    on: torch.Tensor
    noise: list[torch.Tensor]
    on_before: list[torch.Tensor]


def _draw_layers(scores: torch.Tensor, units: torch.Tensor, noise: Noise) -> _LayerDraws:
    batch, layers = scores.shape
    drawn = _LayerDraws(torch.zeros_like(scores, dtype=torch.bool), [], [])
    for draw in range(int(units.max()) if batch else 0):
        drawn.noise.append(noise((batch, layers)))
        drawn.on_before.append(drawn.on)
        pick = (scores + drawn.noise[-1]).masked_fill(drawn.on, _OFF).argmax(dim=1)
        drawn.on = drawn.on | (functional.one_hot(pick, layers).bool() & (units > draw)[:, None])
    return drawn


def select_switches(logits: torch.Tensor, units: torch.Tensor, rank: int, noise: Noise | None = None) -> torch.Tensor:
    """Select ``rank`` heads and ``rank`` neuron groups of one layer for each unit (kind H).

    Once per unit, one switch among all that are off names a layer; there the ``rank`` best heads and the ``rank`` best
    neuron groups that are off go on. logits (B, N, 2, A), units (B,) -> gates (B, N, 2, A), 0 or 1; with noise,
    differentiable in the logits: a unit's gates are the outer product of two relaxed draws, which layer, and which
    switches by the drawn layer's logits.
    """
    if noise is None:
        return _best_switches(logits.detach(), units, rank).to(logits.dtype)
    record = _draw_switches(logits.detach(), units, rank, noise)
    if record is None:
        return _straight_through(torch.zeros_like(logits), logits * 0)
    draws, layers = len(record.layer), logits.shape[1]
    named = record.naming_scores + (logits - logits.detach())  # (draws, B, N, 2, A)
    relaxed = torch.softmax(named.flatten(2) / TEMPERATURE, dim=-1).view(*named.shape[:3], -1).sum(dim=-1)
    weight = _straight_through(functional.one_hot(record.layer, layers), relaxed)  # (draws, B, N)
    here = torch.einsum("tbn,bnca->tbca", weight, logits) + record.noise
    soft = torch.softmax((here / TEMPERATURE).masked_fill(record.on_before, _OFF), dim=-1)
    soft = soft * _belongs(units, draws).T[..., None, None]
    return torch.einsum("tbn,tbca->bnca", weight, _straight_through(record.picked, soft))


def _best_switches(scores: torch.Tensor, units: torch.Tensor, rank: int) -> torch.Tensor:
    """What is on (B, N, 2, A), bool: the units one after the other, without a loop.

    A layer is named by the better of its best head and best neuron group that are off. Each time it is named the next
    ``rank`` of each go on, so what names it for the first, second, ... time is known in advance, and never rises: the
    units are the best of all these.
    """
    best = scores.sort(dim=-1, descending=True, stable=True)
    names = best.values[..., ::rank].amax(dim=2)  # (B, N, A / rank)
    times_named = (_ranks(names.flatten(1)) < units[:, None]).view_as(names).sum(dim=-1)  # (B, N)
    return best.indices.argsort(dim=-1) < rank * times_named[..., None, None]


def _ranks(scores: torch.Tensor) -> torch.Tensor:
    """(B, n) scores -> their ranks from 0, the greatest first; equal ones by index."""
    return scores.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)


@dataclass(frozen=True)
class _SwitchDraws:
    """A training draw of kind H: for each draw, what named a layer and what was picked there."""

    naming_scores: torch.Tensor  # (draws, B, N, 2, A): scores with noise, minus infinity for what was on
    layer: torch.Tensor  # (draws, B)
    noise: torch.Tensor  # (draws, B, 2, A): of the picks in that layer
    on_before: torch.Tensor  # (draws, B, 2, A)
    picked: torch.Tensor  # (draws, B, 2, A)


def _draw_switches(scores: torch.Tensor, units: torch.Tensor, rank: int, noise: Noise) -> _SwitchDraws | None:
    """Return the record of a draw; None where nothing was drawn."""
    batch, _, components, switches = scores.shape
    draws = int(units.max()) if batch else 0
    rows = torch.arange(batch, device=scores.device)
    on = torch.zeros_like(scores, dtype=torch.bool)
    naming = scores.new_empty(draws, *scores.shape)
    steps: list[tuple[torch.Tensor, ...]] = []
    for draw in range(draws):
        named = naming[draw].copy_(scores)
        named += noise(tuple(scores.shape))
        layer = named.masked_fill_(on, _OFF).flatten(1).argmax(dim=1) // (components * switches)
        on_before, extra = on[rows, layer], noise((batch, components, switches))  # (B, 2, A)
        best = (scores[rows, layer] + extra).masked_fill(on_before, _OFF).topk(rank, dim=-1).indices
        picked = torch.zeros_like(on_before).scatter_(-1, best, True) & (units > draw)[:, None, None]
        on[rows, layer] = on_before | picked
        steps.append((layer, extra, on_before, picked))
    return _SwitchDraws(naming, *(torch.stack(part) for part in zip(*steps, strict=True))) if steps else None


def _belongs(units: torch.Tensor, draws: int) -> torch.Tensor:
    """(B, draws): which draws belong to a row's budget."""
    return torch.arange(draws, device=units.device) < units[:, None]


def _straight_through(hard: torch.Tensor, soft: torch.Tensor) -> torch.Tensor:
    """Return the hard gates' value with the soft gates' gradient, written so that the value is exact: 0 or 1.

    Where nothing was drawn ``soft`` is 0 times the logits: their gradient is 0, and not missing, as DeepSpeed needs
    where another process has one.
    """
    return hard.to(soft.dtype) + (soft - soft.detach())
