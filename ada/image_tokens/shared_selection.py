"""Selects tokens over all images of a prompt, under one number for all of them: at least one of each image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from ada.image_tokens.amount import shared_counts
from ada.image_tokens.selectors import Candidates, attended, salience, select_diverse, selector_named, spread

SCORES: dict[str, Callable[[Candidates], torch.Tensor]] = {"cls": attended, "salient": salience}
"""What tokens of several images are compared by; greater stays."""


def select_shared(images: Sequence[Candidates], keep: int, selector: str) -> list[torch.Tensor]:
    """Return the indices (k_i,) of each image's tokens that stay: ``keep`` over all images, at least one of each.

    Tokens of all images compete where the selector scores or compares them; the others give each image its part.
    """
    lengths = [len(image) for image in images]
    keep = max(keep, len(images))
    if selector in SCORES:
        return _by_images(_highest(images, keep, SCORES[selector]), lengths)
    if selector == "divprune":
        unit = functional.normalize(torch.cat([image.features for image in images]).float(), dim=-1)
        firsts = [select_diverse(image, 1) + start for image, start in zip(images, _starts(lengths), strict=True)]
        return _by_images(spread(1 - unit @ unit.T, keep, torch.cat(firsts)), lengths)
    choose, counts = selector_named(selector), shared_counts(keep, lengths)
    return [choose(image, count) for image, count in zip(images, counts, strict=True)]


def _highest(images: Sequence[Candidates], keep: int, score: Callable[[Candidates], torch.Tensor]) -> torch.Tensor:
    scores = [score(image) for image in images]
    for own in scores:
        own[own.argmax()] = torch.inf
    return torch.cat(scores).topk(keep).indices.sort().values


def _by_images(indices: torch.Tensor, lengths: Sequence[int]) -> list[torch.Tensor]:
    """Split ascending indices over all images' tokens (k,) into those of each image."""
    return [
        indices[(indices >= start) & (indices < start + length)] - start
        for start, length in zip(_starts(lengths), lengths, strict=True)
    ]


def _starts(lengths: Sequence[int]) -> list[int]:
    return [sum(lengths[:image]) for image in range(len(lengths))]
