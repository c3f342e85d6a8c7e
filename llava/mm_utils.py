"""Images and prompts on their way into the model."""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from transformers import StoppingCriteria

from llava.constants import DEFAULT_IMAGE_TOKEN, IMAGE_TOKEN_INDEX
from llava.errors import CheckpointError
from llava.files.images import load_image, load_image_from_base64

__all__ = [
    "KeywordsStoppingCriteria",
    "divide_to_patches",
    "expand2square",
    "get_anyres_image_grid_shape",
    "get_model_name_from_path",
    "grid_resolutions",
    "load_image",
    "load_image_from_base64",
    "process_anyres_image",
    "process_images",
    "resize_and_pad_image",
    "select_best_resolution",
    "tokenizer_image_token",
]

Size = tuple[int, int]  # width, height in pixels


# Images -> pixels


def expand2square(pil_img: Image.Image, background_color: tuple[int, ...]) -> Image.Image:
    """The image in the middle of a square of its longer side."""
    width, height = pil_img.size
    if width == height:
        return pil_img
    side = max(width, height)
    square = Image.new(pil_img.mode, (side, side), background_color)
    square.paste(pil_img, ((side - width) // 2, (side - height) // 2))
    return square


def process_images(images: Sequence[Image.Image], image_processor: Any, model_cfg: Any) -> Any:
    """Images -> pixels (N, 3, S, S), or a list of (n, 3, S, S) where ``anyres`` gives them unequal crops.

    ``model_cfg.image_aspect_ratio``: "pad" to a square with the mean colour, "anyres" for crops, anything else
    (square, none) as the processor crops.
    """
    aspect = getattr(model_cfg, "image_aspect_ratio", None)
    if aspect == "anyres":
        pixels = [process_anyres_image(image, image_processor, model_cfg.image_grid_pinpoints) for image in images]
    elif aspect == "pad":
        mean = tuple(int(channel * 255) for channel in image_processor.image_mean)
        pixels = [_pixels(expand2square(image.convert("RGB"), mean), image_processor) for image in images]
    else:
        return image_processor([image.convert("RGB") for image in images], return_tensors="pt")["pixel_values"]
    same = all(image.shape == pixels[0].shape for image in pixels)
    return torch.stack(pixels) if same else pixels


def _pixels(image: Image.Image, image_processor: Any) -> torch.Tensor:
    # Transparency is dropped, as LLaVA always has; the processor alone would lay the picture on white.
    return image_processor(image.convert("RGB"), return_tensors="pt")["pixel_values"][0]


# Any resolution: a picture as a small whole and a grid of crops


def select_best_resolution(original_size: Size, possible_resolutions: Sequence[Size]) -> Size | None:
    """The (width, height) that keeps most of the picture's pixels, then wastes the fewest; the first of equals."""
    width, height = original_size

    def merit(resolution: Size) -> Size:
        across, down = resolution
        scale = min(across / width, down / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - across * down

    return max(possible_resolutions, key=merit, default=None)


def resize_and_pad_image(image: Image.Image, target_resolution: Size) -> Image.Image:
    """The image fitted into (width, height), in the middle, on black."""
    width, height = image.size
    across, down = target_resolution
    # Rounded up, and never beyond the target.
    if across / width < down / height:
        fitted = across, min(math.ceil(height * (across / width)), down)
    else:
        fitted = min(math.ceil(width * (down / height)), across), down
    canvas = Image.new("RGB", (across, down), (0, 0, 0))
    canvas.paste(image.resize(fitted), ((across - fitted[0]) // 2, (down - fitted[1]) // 2))
    return canvas


def divide_to_patches(image: Image.Image, patch_size: int) -> list[Image.Image]:
    """Square crops in reading order; those at the right and lower edge reach beyond the image."""
    width, height = image.size
    return [
        image.crop((x, y, x + patch_size, y + patch_size))
        for y in range(0, height, patch_size)
        for x in range(0, width, patch_size)
    ]


def grid_resolutions(grid_pinpoints: str | Sequence[Sequence[int]] | None) -> list[Size]:
    """Grid pinpoints, as a list or as text of one -> [(width, height), ...]."""
    try:
        points: Any = ast.literal_eval(grid_pinpoints) if isinstance(grid_pinpoints, str) else grid_pinpoints
        return [(int(width), int(height)) for width, height in points]
    except (ValueError, SyntaxError, TypeError) as error:
        raise CheckpointError(
            f"image_grid_pinpoints is {grid_pinpoints!r}; expected a list like [[336, 672], [672, 336]]"
        ) from error


def get_anyres_image_grid_shape(
    image_size: Size, grid_pinpoints: str | Sequence[Sequence[int]], patch_size: int
) -> tuple[int, int]:
    """How many crops of ``patch_size`` pixels a picture of (width, height) gets: across, down."""
    width, height = _best(image_size, grid_pinpoints)
    return width // patch_size, height // patch_size


def process_anyres_image(
    image: Image.Image, processor: Any, grid_pinpoints: str | Sequence[Sequence[int]]
) -> torch.Tensor:
    """One image -> (1 + crops, 3, S, S): the whole of it, squeezed to S by S, then the crops in reading order."""
    best = resize_and_pad_image(image, _best(image.size, grid_pinpoints))
    crops = divide_to_patches(best, processor.crop_size["height"])
    side = processor.size["shortest_edge"]
    return torch.stack([_pixels(part, processor) for part in [image.resize((side, side)), *crops]])


def _best(image_size: Size, grid_pinpoints: str | Sequence[Sequence[int]]) -> Size:
    best = select_best_resolution(image_size, grid_resolutions(grid_pinpoints))
    if best is None:
        raise CheckpointError("image_grid_pinpoints is empty; expected at least one [width, height]")
    return best


# Prompts


def tokenizer_image_token(
    prompt: str, tokenizer: Any, image_token_index: int = IMAGE_TOKEN_INDEX, return_tensors: str | None = None
) -> Any:
    """Ids of a prompt in which each ``<image>`` becomes ``image_token_index``: a list, or with "pt" a tensor (t,).

    The pieces between the tags are tokenised one by one; the beginning-of-text id stays in front of the first only.
    """
    if return_tensors not in (None, "pt"):
        raise ValueError(f"unsupported tensor type {return_tensors!r}; expected 'pt' or None")
    pieces = [list(tokenizer(piece).input_ids) for piece in prompt.split(DEFAULT_IMAGE_TOKEN)]
    bos = pieces[0][:1] if pieces[0] and pieces[0][0] == tokenizer.bos_token_id else []
    ids = [*bos]
    for order, piece in enumerate(pieces):
        if order:
            ids.append(image_token_index)
        ids += piece[len(bos) :]
    return torch.tensor(ids, dtype=torch.long) if return_tensors else ids


def get_model_name_from_path(model_path: str) -> str:
    """A path's last part; for a training checkpoint behind its parent's: ``run/checkpoint-9`` -> run_checkpoint-9."""
    parts = model_path.strip("/").split("/")
    if parts[-1].startswith("checkpoint-") and len(parts) > 1:
        return f"{parts[-2]}_{parts[-1]}"
    return parts[-1]


class KeywordsStoppingCriteria(StoppingCriteria):
    """Stops when every row ends in one of the keywords, by its ids or within the text of its last tokens."""

    def __init__(self, keywords: Sequence[str], tokenizer: Any, input_ids: torch.Tensor) -> None:
        self.keywords = list(keywords)
        self.tokenizer = tokenizer
        self.start_len = input_ids.shape[1]
        self.keyword_ids = []
        for keyword in self.keywords:
            ids = list(tokenizer(keyword).input_ids)
            if len(ids) > 1 and ids[0] == tokenizer.bos_token_id:
                ids = ids[1:]
            self.keyword_ids.append(torch.tensor(ids))
        self.max_keyword_len = max((len(ids) for ids in self.keyword_ids), default=0)

    def __call__(self, output_ids: torch.Tensor, scores: Any = None, **kwargs: Any) -> bool:
        return all(self._ends(row) for row in output_ids)

    def _ends(self, row: torch.Tensor) -> bool:
        new = len(row) - self.start_len
        if new < 0:  # the model was given embeddings: the row holds new tokens only
            new = len(row)
        tail = row[-min(new, self.max_keyword_len) :]  # the whole row where nothing is new, as upstream
        for ids in self.keyword_ids:
            if torch.equal(row[-len(ids) :], ids.to(row.device)):
                return True
        text = self.tokenizer.batch_decode(tail[None], skip_special_tokens=True)[0]
        return any(keyword in text for keyword in self.keywords)
