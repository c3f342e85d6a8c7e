"""Merges an image's tokens as PruMerge and PruMerge+ do (arXiv 2403.15388), which some published checkpoints expect.

Few patches draw the class token's attention. These are kept; each takes up its most similar patches, weighted by their
attention, and all that are not kept become one token more. PruMerge+ also keeps patches at even distances.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

NEIGHBOURS = 32  # patches that each kept one takes up
FIXED_SHARE = 0.125  # of the patches, where outliers are not counted
PLUS_DENSITY = 3  # PruMerge+ keeps so many even patches for each outlier


@dataclass(frozen=True)
class Patches:
    """What PruMerge reads of the vision tower, for one image: n patches of C channels.

    features: (n, C), of the selected layer. keys: (n, C), which the next layer's attention makes of them. attention:
    (n,), the class token's there.
    """

    features: torch.Tensor
    keys: torch.Tensor
    attention: torch.Tensor


def prune_and_merge(patches: Patches, plus: bool = False, share: float | None = None) -> torch.Tensor:
    """Return the kept patches' features with what they took up, and one token for the rest: (k + 1, C).

    share: of the patches that are kept, before PruMerge+ adds its own; by default that of ``outlier_share``.
    """
    return merge(patches, chosen_patches(patches.attention, plus, share))


def outlier_share(attention: torch.Tensor) -> float:
    """Return the share of values above the third quartile by more than 1.5 interquartile ranges; any shape."""
    values = attention.flatten().double()
    low, high = torch.quantile(values, torch.tensor([0.25, 0.75], dtype=values.dtype, device=values.device))
    return float((values > high + 1.5 * (high - low)).double().mean())


def chosen_patches(attention: torch.Tensor, plus: bool = False, share: float | None = None) -> torch.Tensor:
    """Return the indices of the kept patches, the most attended first, then those that PruMerge+ adds.

    attention: (n,). A fixed ``share`` adds even patches whether they are chosen already or not, as published.
    """
    count = len(attention)
    fixed = share is not None
    share = outlier_share(attention) if share is None else share
    top = attention.topk(int(count * share)).indices
    if not plus or share == 0:
        return top
    step = int(1 / share)
    if fixed:
        return torch.cat([top, torch.arange(step // 2, count, step, device=top.device)])
    even = torch.arange(0, count - 1, max(1, step // PLUS_DENSITY), device=top.device)
    return torch.cat([top, even[~torch.isin(even, top)]])


def counted_patches(attention: torch.Tensor, count: int, plus: bool = False) -> torch.Tensor:
    """Return the indices (count,) of the kept patches, ascending, where it is given how many they are.

    attention: (n,). They are the most attended ones; of PruMerge+ one for every ``PLUS_DENSITY`` patches that are at
    even distances among the others.
    """
    top = attention.topk(-(-count // (1 + PLUS_DENSITY)) if plus else count).indices
    others = torch.ones_like(attention, dtype=torch.bool)
    others[top] = False
    rest, even = others.nonzero().flatten(), count - len(top)
    steps = (2 * torch.arange(even, device=rest.device) + 1) * len(rest) // (2 * max(1, even))
    return torch.cat([top, rest[steps]]).sort().values


def merge(patches: Patches, chosen: torch.Tensor) -> torch.Tensor:
    """Return (k + 1, C): each of the ``chosen`` (k,) patches with its neighbours, then the sum of all others."""
    count, kept = len(patches.features), len(chosen)
    rest = torch.ones(count, dtype=torch.bool, device=chosen.device)
    rest[chosen] = False
    others = rest.nonzero().flatten()[kept - count :]  # as published, where a patch is chosen twice
    pool = torch.cat([chosen, others])
    keys = functional.normalize(patches.keys[pool], dim=-1)
    similarity = keys[:kept] @ keys.T
    similarity.fill_diagonal_(-torch.inf)  # not itself
    near = similarity.topk(min(NEIGHBOURS, len(pool) - 1), dim=1).indices
    weighted = patches.features * patches.attention[:, None]
    merged = patches.features[chosen] + weighted[pool[near]].sum(dim=1)
    return torch.cat([merged, weighted[others].sum(dim=0, keepdim=True)])
