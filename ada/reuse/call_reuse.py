"""One call's use of what was computed before: its images' features, and the beginning of its prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from ada.reuse.cache import ReuseCache
from ada.reuse.prompt_states import KnownPrompt
from llava.model.multimodal.embedded_batch import EmbeddedBatch

Encode = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class CallReuse:
    """Of a call of ``generate``.

    known_crops: images, or crops of them, whose features were known; known: the prompt's beginning that was; same_plan:
    the layers from P on could use it, too.
    """

    cache: ReuseCache
    known_crops: int = field(default=0, init=False)
    known: KnownPrompt | None = field(default=None, init=False)
    same_plan: bool = field(default=False, init=False)

    def of_second_reading(self) -> CallReuse:
        """Return the use of another reading of the same prompt, whose images' features this one has."""
        second = CallReuse(self.cache)
        second.known_crops = self.known_crops
        return second

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
        self.known_crops += len(found) - len(new)
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
