"""Turns images into the pixels that the vision tower reads, the same way in training and in answering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from llava.errors import ImageError
from llava.model.multimodal.anyres_grid import (
    GridPinpoints,
    best_grid_size,
    divide_to_patches,
    resize_and_pad_image,
)
from llava.protocols import ImageProcessor


@dataclass(frozen=True)
class ImagePipeline:
    """Image -> pixels, as a checkpoint was trained.

    config: anything with ``image_aspect_ratio`` (a model's config, or training's data arguments): "pad" pads to a
    square with the mean colour, "anyres" cuts crops by ``image_grid_pinpoints``, any other value, or none, leaves
    everything to ``image_processor``, which is None for a model without a vision tower. S: the side of the processor's
    crop, in pixels.
    """

    image_processor: ImageProcessor | None
    config: object

    def pixels(self, image: Image.Image) -> torch.Tensor:
        """Turn one image into (3, S, S), or under "anyres" into (1 + crops, 3, S, S).

        Transparency is dropped, as LLaVA always has; the processor alone would lay the image on white. Raises
        ImageError for a model without a vision tower.
        """
        if self.image_processor is None:
            raise ImageError("images were given to a language model without a vision tower; load a LLaVA checkpoint")
        aspect = getattr(self.config, "image_aspect_ratio", None)
        if aspect == "anyres":
            return process_anyres_image(image, self.image_processor, getattr(self.config, "image_grid_pinpoints", None))
        image = image.convert("RGB")
        if aspect == "pad":
            mean = tuple(int(channel * 255) for channel in self.image_processor.image_mean)
            image = expand2square(image, mean)
        return _processed(image, self.image_processor)

    def batch(self, images: Sequence[Image.Image]) -> torch.Tensor | list[torch.Tensor]:
        """Turn N images into one tensor (N, ...) of what ``pixels`` gives, or a list where crops differ in number."""
        pixels = [self.pixels(image) for image in images]
        same = all(image.shape == pixels[0].shape for image in pixels)
        return torch.stack(pixels) if same else pixels


def expand2square(pil_img: Image.Image, background_color: tuple[int, ...]) -> Image.Image:
    """Centre the image in a square of its longer side."""
    width, height = pil_img.size
    if width == height:
        return pil_img
    side = max(width, height)
    square = Image.new(pil_img.mode, (side, side), background_color)
    square.paste(pil_img, ((side - width) // 2, (side - height) // 2))
    return square


def process_anyres_image(image: Image.Image, processor: ImageProcessor, grid_pinpoints: GridPinpoints) -> torch.Tensor:
    """Turn one image into (1 + crops, 3, S, S): all of it, squeezed to S by S, then the crops in reading order."""
    best = resize_and_pad_image(image, best_grid_size(image.size, grid_pinpoints))
    crops = divide_to_patches(best, processor.crop_size["height"])
    side = processor.size["shortest_edge"]
    return torch.stack([_processed(part.convert("RGB"), processor) for part in [image.resize((side, side)), *crops]])


def _processed(image: Image.Image, processor: ImageProcessor) -> torch.Tensor:
    pixels: torch.Tensor = processor(image, return_tensors="pt")["pixel_values"][0]
    return pixels
