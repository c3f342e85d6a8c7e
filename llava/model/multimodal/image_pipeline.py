"""Turns images into the pixels that the vision tower reads, the same way in training and in answering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from llava.model.multimodal.aspect_ratio import aspect_ratio, crops_of, cuts_crops
from llava.protocols import ImageProcessor


@dataclass(frozen=True)
class ImagePipeline:
    """Image -> pixels, as a checkpoint was trained.

    config: anything with ``image_aspect_ratio`` (a model's config, or training's data arguments): "pad" pads to a
    square with the mean colour, "anyres" and "anyres_max_N" cut crops by ``image_grid_pinpoints``, any other value, or
    none, leaves everything to ``image_processor``, which is None for a model without a vision tower. S: the side of
    the processor's pixels.
    """

    image_processor: ImageProcessor | None
    config: object

    def pixels(self, image: Image.Image, num_images: int = 1) -> torch.Tensor:
        """Turn one image into (3, S, S), or where it is cut into crops into (1 + crops, 3, S, S).

        num_images: how many images the prompt has; under "anyres_max_N" each of several is padded: (1, 3, S, S).
        Transparency is dropped, as LLaVA always has; the processor alone would lay the image on white. Raises
        ImageError for a model without a vision tower.
        """
        if self.image_processor is None:
            raise ImageError("images were given to a language model without a vision tower; load a LLaVA checkpoint")
        if crops_of(self.config, num_images):
            return process_anyres_image(image, self.image_processor, getattr(self.config, "image_grid_pinpoints", None))
        has_crops = cuts_crops(self.config)
        image = image.convert("RGB")
        if has_crops or aspect_ratio(self.config) == "pad":
            mean = tuple(int(channel * 255) for channel in self.image_processor.image_mean)
            image = expand2square(image, mean)
        pixels = _processed(image, self.image_processor)
        return pixels[None] if has_crops else pixels

    def batch(
        self, images: Sequence[Image.Image], images_per_prompt: Sequence[int] | None = None
    ) -> torch.Tensor | list[torch.Tensor]:
        """Turn N images into one tensor (N, ...) of what ``pixels`` gives, or a list where crops differ in number.

        images_per_prompt: how many of the images each prompt has, in their order; by default one prompt has all.
        Raises ImageError where these are not the images' number.
        """
        counts = [len(images)] if images_per_prompt is None else images_per_prompt
        if sum(counts) != len(images):
            raise ImageError(
                f"{sum(counts)} image tag(s) in the prompts, but {len(images)} image(s) given; there must be one "
                "<image> for each image"
            )
        of_prompt = [count for count in counts for _ in range(count)]
        pixels = [self.pixels(image, count) for image, count in zip(images, of_prompt, strict=True)]
        same = all(image.shape == pixels[0].shape for image in pixels)
        return torch.stack(pixels) if same else pixels


def crop_side(processor: ImageProcessor) -> int:
    """Return the side S of the processor's pixels: that of its crop, or without a crop of its resized image."""
    size = processor.crop_size if getattr(processor, "do_center_crop", True) else processor.size
    return int(_sides(size or processor.size)[0])


def _sides(size: Mapping[str, int]) -> tuple[int, int]:
    """Return height and width that a processor's ``size`` gives, a square's where it names the shortest edge."""
    edge = size.get("shortest_edge")
    return (size["height"], size["width"]) if edge is None else (edge, edge)


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
    side = crop_side(processor)
    best = resize_and_pad_image(image, best_grid_size(image.size, grid_pinpoints, side))
    height, width = _sides(processor.size)
    overview = image.resize((width, height))
    parts = [overview, *divide_to_patches(best, side)]
    return torch.stack([_processed(part.convert("RGB"), processor) for part in parts])


def _processed(image: Image.Image, processor: ImageProcessor) -> torch.Tensor:
    pixels: torch.Tensor = processor(image, return_tensors="pt")["pixel_values"][0]
    return pixels
