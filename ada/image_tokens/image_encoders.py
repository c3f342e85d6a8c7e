"""Encodes the images of one call: as the model does, or with what the class token attends to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from ada.image_tokens.class_attention import check_class_token, class_attention
from ada.image_tokens.encoded_images import EncodedImage
from ada.image_tokens.layout import Merging, cells_in, tokens_in
from llava.model.multimodal.anyres_merge import merge_crops
from llava.protocols import Images, ImageSizes

Encode = Callable[[Images, ImageSizes | None], list[torch.Tensor]]
"""The model's own ``image_features``."""


class ImageEncoder:
    """Encodes one call's images as the model does, and says where their tokens are.

    mergings: of each image; limits: how many tokens each may have, None for all, which a subclass may keep to.
    """

    def __init__(self, model: Any, selector: str, mergings: Sequence[Merging], limits: Sequence[int | None]) -> None:
        self.model, self.selector, self.mergings, self.limits = model, selector, mergings, limits
        self.tower = model.get_vision_tower()
        self.side: int = self.tower.num_patches_per_side
        self.layouts = [merging.layout(self.side) for merging in mergings]

    def tower_features(self, tower: Any, pixels: torch.Tensor) -> torch.Tensor:
        """Run the vision tower on pixels (N, 3, S, S): features (N, P, C)."""
        features: torch.Tensor = tower(pixels)
        return features

    def image_features(self, encode: Encode, images: Images, image_sizes: ImageSizes | None) -> list[torch.Tensor]:
        """Encode images as one (n, D) tensor of features each; ``encode`` is the model's own way."""
        return encode(images, image_sizes)

    def lengths(self) -> list[int] | None:
        """Return how many tokens ``image_features`` makes of each image; None where it is as many as the model's."""
        return None

    def encoded(self) -> list[EncodedImage]:
        """Return what each image is, after ``image_features``."""
        crop = self.tower.num_image_tokens
        return [
            EncodedImage(
                tokens_in(layout),
                cells_in(layout),
                sides=(self.side,) * ((merging.crops or 1) * self.tower.crops_per_image),
                projected=crop * (merging.crops or 1),
            )
            for layout, merging in zip(self.layouts, self.mergings, strict=True)
        ]


class ReadsClassAttention(ImageEncoder):
    """Also keeps what the class token attends to, from the pass through the tower that features come from."""

    def __init__(self, model: Any, selector: str, mergings: Sequence[Merging], limits: Sequence[int | None]) -> None:
        super().__init__(model, selector, mergings, limits)
        check_class_token(self.tower, selector)
        self._of_crops: list[torch.Tensor] = []

    @torch.no_grad()
    def tower_features(self, tower: Any, pixels: torch.Tensor) -> torch.Tensor:
        """Run the vision tower on pixels (N, 3, S, S), and keep each crop's class attention (P,)."""
        outputs = tower.outputs(pixels)
        self._of_crops.extend(class_attention(tower, outputs))
        features: torch.Tensor = tower.feature_select(outputs).to(pixels.dtype)
        return features

    def encoded(self) -> list[EncodedImage]:
        """Return what each image is; without attention where a method that encodes images was replaced."""
        images = super().encoded()
        if len(self._of_crops) != sum(merging.crops or 1 for merging in self.mergings):
            return images
        found, first = [], 0
        for image, merging in zip(images, self.mergings, strict=True):
            crops = torch.stack(self._of_crops[first : first + (merging.crops or 1)])
            first += len(crops)
            found.append(replace(image, class_attention=_merged(crops, merging)))
        return found


def _merged(attention: torch.Tensor, merging: Merging) -> torch.Tensor:
    """Merge crops' class attention (n, P) as their features are merged: (tokens,). Newlines get the minimum."""
    if merging.crops is None:
        return attention[0]
    newline = attention.new_full((1,), torch.nan)
    merged = merge_crops(
        attention[..., None], merging.merge_type, merging.grid, merging.image_size, newline, merging.max_crops
    )[:, 0]
    minimum = merged[~merged.isnan()].min()
    return merged.nan_to_num(nan=float(minimum))
