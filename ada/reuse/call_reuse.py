"""One call's use of what was computed before: its images' features, and the beginning of its prompt."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from ada.reuse.cache import ReuseCache
from ada.reuse.prompt_states import KnownPrompt
from llava.model.multimodal.embedded_batch import EmbeddedBatch

Encode = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class CallReuse:
    """Of a call of ``generate``.

    crops: of each crop of the images, in their order, whether its features were known; known: the prompt's beginning
    that was; same_plan: the layers from P on could use it, too.
    """

    cache: ReuseCache
    crops: list[bool] = field(default_factory=list, init=False)
    known: KnownPrompt | None = field(default=None, init=False)
    same_plan: bool = field(default=False, init=False)

    def of_second_reading(self) -> CallReuse:
        """Return the use of another reading of the same prompt, whose images' features this one has."""
        second = CallReuse(self.cache)
        second.crops = self.crops
        return second

    @property
    def known_crops(self) -> int:
        """Images, or crops of them, whose features were known."""
        return sum(self.crops)

    def known_crops_of(self, images_per_row: Sequence[int]) -> list[int]:
        """Return how many of each row's crops were known; none of several rows where it is not known whose they are."""
        if len(images_per_row) == 1:
            return [min(self.known_crops, images_per_row[0])]
        if sum(images_per_row) != len(self.crops):
            return [0] * len(images_per_row)
        ends = list(itertools.accumulate(images_per_row))
        return [sum(self.crops[end - count : end]) for end, count in zip(ends, images_per_row, strict=True)]

    @property
    def length(self) -> int:
        """Positions of the prompt's beginning that was known."""
        return 0 if self.known is None else self.known.length

    @property
    def used(self) -> bool:
        """Whether anything was known."""
        return bool(self.length or self.known_crops)

    def encode(self, encode: Encode, pixels: torch.Tensor) -> torch.Tensor:
        """Return the features (N, P, D) of pixels (N, 3, S, S); only crops that are not known are encoded."""
        found = [self.cache.find_features(crop) for crop in pixels]
        new = [number for number, features in enumerate(found) if features is None]
        self.crops += [features is not None for features in found]
        if new:
            encoded = encode(pixels[new])
            for number, features in zip(new, encoded, strict=True):
                self.cache.add_features(pixels[number], features)
                found[number] = features
        return torch.stack(found)  # type: ignore[arg-type]

    def find_prompt(self, batch: EmbeddedBatch, has_latency_token: bool) -> None:
        """Look for the beginning of a prompt of one row.

        batch: what is read, without the latency token. Without one the last position is read again: the answer follows
        from it.
        """
        mask = batch.attention_mask
        if len(batch.embeds) != 1 or not (mask is None or bool(mask.all())):
            return
        count = batch.width - (not has_latency_token)
        positions = batch.position_ids[0] if batch.position_ids is not None else torch.arange(batch.width)
        self.known = self.cache.find_prompt(batch.embeds[0, :count], positions[:count].to(batch.embeds.device))
