"""Counts the decoder positions of images, before and without encoding them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from llava.errors import ImageError
from llava.model.multimodal.anyres_grid import get_anyres_image_grid_shape
from llava.model.multimodal.anyres_merge import merged_positions
from llava.model.multimodal.aspect_ratio import crops_of, cuts_crops, max_crops
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.protocols import Images, ImageSizes


class CountsImageTokens:
    """The part of a LLaVA that knows how many tokens an image becomes."""

    config: Any
    get_vision_tower: Callable[[], CLIPVisionTower | None]  # the model's

    def max_image_tokens(self, size: tuple[int, int], num_images: int = 1) -> int:
        """Return how many decoder positions an image of (width, height) takes.

        num_images: how many images its prompt has; under "anyres_max_N" several are not cut into crops. Raises
        ImageError for a model without a vision tower.
        """
        tower, config = self._tower(), self.config
        if not cuts_crops(config):
            return tower.num_image_tokens
        grid = self._crop_grid(size) if crops_of(config, num_images) else None
        return merged_positions(tower.num_image_tokens, self._merge_type, grid, size, max_crops(config))

    @property
    def _merge_type(self) -> str:
        return getattr(self.config, "mm_patch_merge_type", None) or "flat"

    def _tower(self) -> CLIPVisionTower:
        tower = self.get_vision_tower()
        if tower is None:
            raise ImageError("images were given to a language model without a vision tower; load a LLaVA checkpoint")
        return tower

    def image_lengths(self, images: Images, image_sizes: ImageSizes | None = None) -> list[int] | None:
        """Return how many tokens ``image_features`` makes of each image; None where only encoding shows it."""
        tokens, merge_type = self._tower().num_image_tokens, self._merge_type
        if isinstance(images, torch.Tensor) and images.dim() == 4:
            return [tokens] * len(images)
        crops = [1 if image.dim() == 3 else len(image) for image in images]
        if merge_type == "flat":
            return [tokens * count for count in crops]
        sizes = [None] * len(crops) if image_sizes is None else image_sizes
        grids = [self._crop_grid(size) if count > 1 else None for size, count in zip(sizes, crops, strict=True)]
        limit = max_crops(self.config)
        return [merged_positions(tokens, merge_type, *each, limit) for each in zip(grids, sizes, strict=True)]

    def _crop_grid(self, size: tuple[int, int] | None) -> tuple[int, int] | None:
        """Count crops across and down for an image of ``size`` (width, height)."""
        if size is None or not cuts_crops(self.config):
            return None
        return get_anyres_image_grid_shape(size, self.config.image_grid_pinpoints, self._tower().input_side)
