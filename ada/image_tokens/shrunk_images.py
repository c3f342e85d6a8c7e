"""Shrinks images so that their tokens fit a number: vision tower and decoder then read fewer of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from ada.image_tokens.encoded_images import EncodedImage
from ada.image_tokens.image_encoders import Encode, ImageEncoder
from ada.image_tokens.layout import Layout, Merging, cells_in, has_nearest, nearest_tokens, tokens_in
from llava.errors import OptionError
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTowerS2
from llava.protocols import Images, ImageSizes


class ShrinksImages(ImageEncoder):
    """Resizes pixels to the largest square of patches whose tokens are no more than an image's limit.

    Each token gets the position of the nearest one of the image at its own size, so that distances on the image stay.
    """

    def __init__(self, model: Any, selector: str, mergings: Sequence[Merging], limits: Sequence[int | None]) -> None:
        super().__init__(model, selector, mergings, limits)
        if isinstance(self.tower, CLIPVisionTowerS2):
            raise OptionError(
                "the token selector 'shrink' resizes images for the vision tower, which this checkpoint's S2 reads at "
                f"sizes of its own ({self.tower.s2_scales} pixels); choose salient, divprune or grid"
            )
        self.sides = [_largest_side(merging, limit, self.side) for merging, limit in zip(mergings, limits, strict=True)]
        self.shrunk: list[Layout] = [merging.layout(side) for merging, side in zip(mergings, self.sides, strict=True)]

    @torch.no_grad()
    def tower_features(self, tower: Any, pixels: torch.Tensor) -> torch.Tensor:
        """Run the vision tower on pixels (N, 3, S, S) of any size, its table of positions interpolated."""
        if pixels.shape[-1] == tower.input_side:
            return super().tower_features(tower, pixels)
        features: torch.Tensor = tower.feature_select(tower.outputs(pixels, other_size=True)).to(pixels.dtype)
        return features

    def image_features(self, encode: Encode, images: Images, image_sizes: ImageSizes | None) -> list[torch.Tensor]:
        """Encode images as one (n, D) tensor of features each; those of one size at once."""
        patch = self.tower.input_side // self.side
        features: dict[int, torch.Tensor] = {}
        for side in sorted(set(self.sides)):
            own = [number for number, one in enumerate(self.sides) if one == side]
            pixels = [_resized(images[number], side * patch) if side < self.side else images[number] for number in own]
            alike = torch.stack(pixels) if isinstance(images, torch.Tensor) else pixels
            sizes = None if image_sizes is None else [image_sizes[number] for number in own]
            features |= dict(zip(own, encode(alike, sizes), strict=True))
        return [features[number] for number in range(len(self.sides))]

    def lengths(self) -> list[int]:
        """Return how many tokens each shrunk image has."""
        return [tokens_in(layout) for layout in self.shrunk]

    def encoded(self) -> list[EncodedImage]:
        """Return what each image is, its tokens at the positions of the nearest ones at its own size."""
        found = []
        for small, layout, merging, side in zip(self.shrunk, self.layouts, self.mergings, self.sides, strict=True):
            crops = merging.crops or 1
            nearest = None if small == layout else nearest_tokens(small, layout)
            found.append(
                EncodedImage(
                    tokens_in(layout),
                    cells_in(small),
                    nearest,
                    sides=(side,) * crops,
                    projected=crops * (side**2 + merging.class_token),
                )
            )
        return found


def _largest_side(merging: Merging, limit: int | None, side: int) -> int:
    """Return the most patches a side of a crop may have for the image to have at most ``limit`` tokens.

    Raises OptionError where the image has more tokens at every size.
    """
    if limit is None:
        return side
    full = merging.layout(side)
    layouts = {smaller: merging.layout(smaller) for smaller in range(side, 0, -1)}
    counts = {smaller: tokens_in(layout) for smaller, layout in layouts.items() if has_nearest(layout, full)}
    for smaller, count in counts.items():
        if count <= limit:
            return smaller
    minimum = min(counts.values())
    raise OptionError(
        f"the token selector is 'shrink', and --image-tokens leaves {limit} tokens for an image; this image of "
        f"{merging.crops or 1} crops has at least {minimum} at any size. Ask for {minimum} or more, or choose salient, "
        "divprune or grid"
    )


def _resized(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """Resize (3, S, S) or (n, 3, S, S) to ``size`` pixels a side: bilinear, antialiased."""
    crops = pixels if pixels.dim() == 4 else pixels[None]
    resized = functional.interpolate(crops.float(), size=(size, size), mode="bilinear", antialias=True)
    return resized.to(pixels.dtype).view(*pixels.shape[:-2], size, size)
