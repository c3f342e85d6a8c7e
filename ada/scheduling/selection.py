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
    """Standard Gumbel noise from one generator, by default torch's own."""
    return lambda shape: gumbel_of(torch.rand(shape, device=device, generator=generator))


def gumbel_of(uniform: torch.Tensor) -> torch.Tensor:
    """Uniform draws U in [0, 1), which are overwritten -> standard Gumbel noise, ``-log(E)`` with exponential
    ``E = -log(1 - U)``; torch's own exponential draws are ten times slower on a CPU, and so is ``log1p``. ``U`` steps
    by 2**-24: ``1 - U`` is exact, and half a step keeps E from being 0."""
    return uniform.neg_().add_(1).log_().neg_().clamp_min_(2**-25).log_().neg_()


def select_layers(logits: torch.Tensor, units: torch.Tensor, noise: Noise | None = None) -> torch.Tensor:
    """Kind L: exactly ``units`` (B,) of the N layers, drawn without replacement.

    logits (B, N) -> gates (B, N), 0 or 1; with noise, differentiable in the logits. A draw that no longer belongs
    to a row's budget leaves the row as it is.
    """
    batch, layers = logits.shape
    draws = int(units.max()) if batch else 0
    scores = logits.detach()
    on = torch.zeros(batch, layers, dtype=torch.bool, device=logits.device)
    off_before: list[torch.Tensor] = []
    noises: list[torch.Tensor] = []
    for draw in range(draws):
        row_draws = units > draw
        noisy = scores if noise is None else scores + _remember(noise((batch, layers)), noises)
        pick = noisy.masked_fill(on, _OFF).argmax(dim=1)
        off_before.append(~on)
        on = on | (torch.nn.functional.one_hot(pick, layers).bool() & row_draws[:, None])
    if noise is None:
        return on.to(logits.dtype)
    if not draws:
        return _straight_through(on, logits * 0)
    soft = _soft(logits[:, None], noises, off_before)  # (B, draws, N)
    soft = soft * _drawn(units, draws)[..., None]
    return _straight_through(on, soft.sum(dim=1))


def select_switches(logits: torch.Tensor, units: torch.Tensor, rank: int, noise: Noise | None = None) -> torch.Tensor:
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
    named = scores.new_empty(draws if noise else 1, *scores.shape)  # what each draw named a layer by
    steps: list[tuple[torch.Tensor, ...]] = []
    for draw in range(draws):
        here_named = named[draw if noise else 0]
        here_named.copy_(scores)
        if noise is not None:
            here_named += noise((batch, layers, sorts, switches))
        layer = here_named.masked_fill_(on, _OFF).flatten(1).argmax(dim=1) // (sorts * switches)
        on_here = on[rows, layer]  # (B, 2, A)
        here = scores[rows, layer]
        extra = None if noise is None else noise((batch, sorts, switches))
        best = (here if extra is None else here + extra).masked_fill(on_here, _OFF).topk(rank, dim=-1).indices
        picked = torch.zeros_like(on_here).scatter_(-1, best, True) & (units > draw)[:, None, None]
        on[rows, layer] = on_here | picked
        if extra is not None:
            steps.append((layer, extra, on_here, picked))
    if noise is None:
        return on.to(logits.dtype)
    if not draws:
        return _straight_through(on, logits * 0)
    layer, extra, on_here, picked = (torch.stack(part) for part in zip(*steps, strict=True))
    relaxed = torch.softmax((named + (logits - scores)).flatten(2) / TEMPERATURE, dim=-1)
    weight = _straight_through(
        torch.nn.functional.one_hot(layer, layers), relaxed.unflatten(2, (layers, -1)).sum(dim=-1)
    )  # (draws, B, N)
    here = torch.einsum("tbn,bnsa->tbsa", weight, logits) + extra
    soft = torch.softmax((here / TEMPERATURE).masked_fill(on_here, _OFF), dim=-1)
    soft = soft * _drawn(units, draws).T[..., None, None]
    return torch.einsum("tbn,tbsa->bnsa", weight, _straight_through(picked, soft))


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
    """The hard gates' value with the soft gates' gradient. Written so that the value is exact: 0 or 1.

    Where nothing was drawn ``soft`` is 0 times the logits: their gradient is 0, and not missing, as DeepSpeed needs
    where another process has one.
    """
    return hard.to(soft.dtype) + (soft - soft.detach())
