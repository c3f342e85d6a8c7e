"""Selects the image tokens of one image that the decoder reads, by nothing but the image: selectors without training.

Each takes the candidates and a number, and returns the indices of so many of them, in ascending order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from llava.errors import OptionError


@dataclass(frozen=True)
class Candidates:
    """The n image tokens of one image, before any is left out.

    features: (n, D), projected into the decoder's space. cells: (n, 2), row and column of each token's centre on the
    image, in any unit.
    """

    features: torch.Tensor
    cells: torch.Tensor

    def __len__(self) -> int:
        return len(self.features)


TokenSelector = Callable[[Candidates, int], torch.Tensor]


def select_random(candidates: Candidates, keep: int) -> torch.Tensor:
    """Return ``keep`` (k) random indices (k,), the same ones for every image of this many tokens."""
    generator = torch.Generator().manual_seed(0)
    return torch.randperm(len(candidates), generator=generator)[:keep].sort().values.to(candidates.features.device)


def select_grid(candidates: Candidates, keep: int) -> torch.Tensor:
    """Return the indices (k,) of tokens that are spread evenly over the image, whatever it shows."""
    cells = candidates.cells.double()
    return spread(torch.cdist(cells, cells), keep)


def select_salient(candidates: Candidates, keep: int) -> torch.Tensor:
    """Return the indices (k,) of the tokens that are unlike the image as a whole.

    Those are the ones of the least cosine to the mean of the image's projected features.
    """
    features = candidates.features.float()
    similarity = functional.cosine_similarity(features, features.mean(dim=0, keepdim=True), dim=-1)
    return similarity.topk(keep, largest=False).indices.sort().values


def select_diverse(candidates: Candidates, keep: int) -> torch.Tensor:
    """Return the indices (k,) of tokens that are unlike each other: DivPrune, arXiv 2503.02175, algorithm 1.

    Greedy max-min over cosine distances of projected features.
    """
    unit = functional.normalize(candidates.features.float(), dim=-1)
    return spread(1 - unit @ unit.T, keep)


def spread(distances: torch.Tensor, keep: int) -> torch.Tensor:
    """Return ``keep`` (k) indices (k,) of points that are far from each other, chosen greedily.

    distances: (n, n), symmetric. The first point has the greatest distance to its nearest neighbour; each further one
    has the greatest distance to the nearest of those that are chosen.
    """
    others = distances.clone()
    others.fill_diagonal_(torch.inf)
    nearest = others.min(dim=1).values if len(distances) > 1 else others[0]
    chosen = torch.zeros(len(distances), dtype=torch.bool, device=distances.device)
    for step in range(keep):
        index = nearest.masked_fill(chosen, -torch.inf).argmax()
        chosen[index] = True
        nearest = distances[index] if step == 0 else torch.minimum(nearest, distances[index])
    return chosen.nonzero().flatten()


SELECTORS: dict[str, TokenSelector] = {
    "random": select_random,
    "grid": select_grid,
    "salient": select_salient,
    "divprune": select_diverse,
}


DEFAULT_SELECTOR = "salient"


def selector_named(name: str) -> TokenSelector:
    """Return the selector of a name. Raises OptionError where there is none."""
    if name not in SELECTORS:
        raise OptionError(f"the token selector is {name!r}; expected one of {', '.join(SELECTORS)}")
    return SELECTORS[name]
