"""Selects the image tokens of one image that the decoder reads, by nothing but the image: selectors without training.

Each takes the candidates and a number, and returns the indices of so many of them, in ascending order. Shrinking and
PruMerge act as images are encoded (``encoding.py``), so that nothing is left to be chosen after it.
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
    image, in any unit. class_attention: (n,), what the vision tower's class token gives to each; None where it was not
    read.
    """

    features: torch.Tensor
    cells: torch.Tensor
    class_attention: torch.Tensor | None = None

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
    return _highest(salience(candidates), keep)


def select_attended(candidates: Candidates, keep: int) -> torch.Tensor:
    """Return the indices (k,) of the tokens that the vision tower's class token attends to most.

    Raises OptionError where the images were not encoded for this selector.
    """
    return _highest(attended(candidates), keep)


def select_diverse(candidates: Candidates, keep: int) -> torch.Tensor:
    """Return the indices (k,) of tokens that are unlike each other: DivPrune, arXiv 2503.02175, algorithm 1.

    Greedy max-min over cosine distances of projected features.
    """
    unit = functional.normalize(candidates.features.float(), dim=-1)
    return spread(1 - unit @ unit.T, keep)


def keep_encoded(candidates: Candidates, keep: int) -> torch.Tensor:
    """Return the indices of all candidates (n,), which were made few as the image was encoded.

    Raises OptionError where it was not encoded so.
    """
    if keep != len(candidates):
        raise OptionError(
            "the token selectors shrink and prumerge act as images are encoded, before a budget is shared out; give "
            "image_tokens a number of tokens or a percentage (embed() takes it too), or choose another selector"
        )
    return torch.arange(keep, device=candidates.features.device)


def salience(candidates: Candidates) -> torch.Tensor:
    """Return how unlike the image each token is (n,): minus the cosine to the mean of its features."""
    features = candidates.features.float()
    return -functional.cosine_similarity(features, features.mean(dim=0, keepdim=True), dim=-1)


def attended(candidates: Candidates) -> torch.Tensor:
    """Return what the class token gives to each token (n,), in means of the image. Raises OptionError, as above."""
    scores = candidates.class_attention
    if scores is None:
        raise OptionError(
            "the token selector is 'cls', and what the vision tower's class token attends to was not read as the "
            "images were encoded; give embed() image_tokens and token_selector too, or choose salient, divprune or grid"
        )
    return scores.float() / scores.float().mean()


def _highest(scores: torch.Tensor, keep: int) -> torch.Tensor:
    return scores.topk(keep).indices.sort().values


def spread(distances: torch.Tensor, keep: int, start: torch.Tensor | None = None) -> torch.Tensor:
    """Return ``keep`` (k) indices (k,) of points that are far from each other, chosen greedily.

    distances: (n, n), symmetric. The first point has the greatest distance to its nearest neighbour; each further one
    has the greatest distance to the nearest of those that are chosen. start: indices that are chosen already.
    """
    chosen = torch.zeros(len(distances), dtype=torch.bool, device=distances.device)
    if start is None:
        others = distances.clone()
        others.fill_diagonal_(torch.inf)
        start = (others.min(dim=1).values if len(distances) > 1 else others[0]).argmax()[None]
    chosen[start] = True
    nearest = distances[start].min(dim=0).values
    for _ in range(keep - len(start)):
        index = nearest.masked_fill(chosen, -torch.inf).argmax()
        chosen[index] = True
        nearest = torch.minimum(nearest, distances[index])
    return chosen.nonzero().flatten()


SELECTORS: dict[str, TokenSelector] = {
    "random": select_random,
    "grid": select_grid,
    "cls": select_attended,
    "salient": select_salient,
    "divprune": select_diverse,
    "prumerge": keep_encoded,
    "prumerge+": keep_encoded,
    "shrink": keep_encoded,
}


DEFAULT_SELECTOR = "salient"


def selector_named(name: str) -> TokenSelector:
    """Return the selector of a name. Raises OptionError where there is none."""
    if name not in SELECTORS:
        raise OptionError(f"the token selector is {name!r}; expected one of {', '.join(SELECTORS)}")
    return SELECTORS[name]
