"""Turns images into the pixels that the vision tower reads, the same way in training and in answering."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image

from llava.errors import ImageError
from llava.files.image_modes import EIGHT_BIT, to_rgb
from llava.files.images import MAX_PIXELS
from llava.model.multimodal.anyres_grid import (
    GridPinpoints,
    best_grid_size,
    divide_to_patches,
    resize_and_pad_image,
)
from llava.model.multimodal.aspect_ratio import aspect_ratio, crops_of, cuts_crops
from llava.protocols import ImageProcessor

SMALL_SQUARE = 2048 * 2048  # pixels; a square up to this costs little, whatever it is made of
MAX_PADDING = 4  # pixels of a tall image's square for one of the image
CROPPED_ASPECT = 16


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
        Transparency is dropped, as LLaVA always has; the processor alone would lay the image on white. Of thin images
        no more is made than is needed, as ``padded_square`` and ``centre_square`` say. Raises ImageError for a model
        without a vision tower, and for a mode that has no meaning in RGB.
        """
        processor = self.image_processor
        if processor is None:
            raise ImageError("images were given to a language model without a vision tower; load a LLaVA checkpoint")
        if crops_of(self.config, num_images):
            pinpoints = getattr(self.config, "image_grid_pinpoints", None)
            return process_anyres_image(image if image.mode in EIGHT_BIT else to_rgb(image), processor, pinpoints)
        has_crops = cuts_crops(self.config)
        image = to_rgb(image)
        if has_crops or aspect_ratio(self.config) == "pad":
            mean = tuple(int(channel * 255) for channel in processor.image_mean)
            image = padded_square(image, mean, processor)
        elif "shortest_edge" in processor.size:
            image = centre_square(image, processor)
        pixels = _processed(image, processor)
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
        return _stacked([self.pixels(image, count) for image, count in zip(images, of_prompt, strict=True)])

    def prepare(self, images: Iterable[Image.Image], num_images: int) -> PreparedImages:
        """Turn a prompt's images into pixels, one at a time, so that an iterator's need not all be in memory.

        num_images: how many they are, which decides whether they are cut into crops.
        """
        pixels, sizes = [], []
        for image in images:
            pixels.append(self.pixels(image, num_images))
            sizes.append(image.size)
            del image  # before the next one is opened
        return PreparedImages.of(pixels, sizes)


@dataclass(frozen=True)
class PreparedImages:
    """Images at the model's size; all that is kept of them while a request waits.

    pixels: (N, 3, S, S), or a list of (crops, 3, S, S); None without images. sizes: (width, height) of each image, in
    pixels, before it was made smaller. notes: what was done to them, for the reply.
    """

    pixels: torch.Tensor | list[torch.Tensor] | None = None
    sizes: tuple[tuple[int, int], ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, pixels: list[torch.Tensor], sizes: Sequence[tuple[int, int]], notes: Sequence[str] = ()
    ) -> PreparedImages:
        """Put together what ``ImagePipeline.pixels`` has made of each image."""
        return cls(_stacked(pixels) if pixels else None, tuple(sizes), tuple(notes))

    def __len__(self) -> int:
        return len(self.sizes)

    def to(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> PreparedImages:
        """Return them with pixels on another device, or of another dtype; None keeps what they have."""
        if self.pixels is None:
            return self
        if isinstance(self.pixels, list):
            return replace(self, pixels=[image.to(device, dtype) for image in self.pixels])
        return replace(self, pixels=self.pixels.to(device, dtype))


def _stacked(pixels: list[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
    same = all(image.shape == pixels[0].shape for image in pixels)
    return torch.stack(pixels) if same else pixels


def padded_square(image: Image.Image, colour: tuple[int, ...], processor: ImageProcessor) -> Image.Image:
    """Centre an image in a square of its longer side, for the processor to resize.

    Where that square would be large, the longer side is resized to the processor's before the shorter one is padded and
    resized, in far less memory. Pillow resizes the width first: the pixels of a wide image are exactly those of the
    square. Those of a tall one may differ by rounding, so its square is made unless that is much larger than the image.
    """
    long, pixels, wide = max(image.size), image.width * image.height, image.width > image.height
    limit = SMALL_SQUARE if wide else min(MAX_PIXELS, max(SMALL_SQUARE, MAX_PADDING * pixels))
    if long * long <= limit:
        return expand2square(image, colour)
    side, _ = _sides(processor.size)
    strip = image.resize((side, image.height) if wide else (image.width, side), processor.resample)
    canvas = Image.new("RGB", (side, long) if wide else (long, side), colour)
    canvas.paste(strip, (0, (long - image.height) // 2) if wide else ((long - image.width) // 2, 0))
    return canvas.resize((side, side), processor.resample)


def centre_square(image: Image.Image, processor: ImageProcessor) -> Image.Image:
    """Resize the middle only of an image ``CROPPED_ASPECT`` times as long as wide, for the processor to crop.

    The processor alone would enlarge all of it first: 1 by 16,000 pixels to 336 by 5.4 million. The result is the same.
    """
    long, short = max(image.size), min(image.size)
    if long <= CROPPED_ASPECT * short:
        return image
    side = processor.size["shortest_edge"]
    length = int(side * long / short)  # of the enlarged image, in pixels
    start = (length - side) // 2
    ends = start * long / length, (start + side) * long / length
    box = (ends[0], 0, ends[1], short) if image.width > image.height else (0, ends[0], short, ends[1])
    return image.resize((side, side), processor.resample, box=box)


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
