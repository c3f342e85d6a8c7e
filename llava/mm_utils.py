"""Prepares what the model reads: images as pixels, prompts as token ids, keywords that stop an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

import torch
from PIL import Image
from transformers import StoppingCriteria

from llava.constants import DEFAULT_IMAGE_TOKEN, IMAGE_TOKEN_INDEX
from llava.files.images import load_image, load_image_from_base64
from llava.model.multimodal.anyres_grid import (
    divide_to_patches,
    get_anyres_image_grid_shape,
    grid_resolutions,
    resize_and_pad_image,
    select_best_resolution,
)
from llava.model.multimodal.image_pipeline import ImagePipeline, expand2square, process_anyres_image
from llava.protocols import ImageProcessor, Tokenizer

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


def process_images(
    images: Sequence[Image.Image], image_processor: ImageProcessor | None, model_cfg: object
) -> torch.Tensor | list[torch.Tensor]:
    """Turn one prompt's images into pixels (N, 3, S, S), or a list of (n, 3, S, S) where their crops differ in number.

    ``model_cfg.image_aspect_ratio`` decides, as ``ImagePipeline`` says.
    """
    return ImagePipeline(image_processor, model_cfg).batch(images)


@overload
def tokenizer_image_token(
    prompt: str, tokenizer: Tokenizer, image_token_index: int = ..., return_tensors: None = None
) -> list[int]: ...


@overload
def tokenizer_image_token(
    prompt: str, tokenizer: Tokenizer, image_token_index: int = ..., *, return_tensors: Literal["pt"]
) -> torch.Tensor: ...


def tokenizer_image_token(
    prompt: str, tokenizer: Tokenizer, image_token_index: int = IMAGE_TOKEN_INDEX, return_tensors: str | None = None
) -> list[int] | torch.Tensor:
    """Tokenize a prompt; each ``<image>`` becomes ``image_token_index``: a list, or with "pt" a tensor (t,).

    The pieces between the tags are tokenized one by one; the beginning-of-text id stands before the first only.
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
    """Return a path's last part; a training checkpoint's after its parent's: run/checkpoint-9 -> run_checkpoint-9."""
    parts = model_path.strip("/").split("/")
    if parts[-1].startswith("checkpoint-") and len(parts) > 1:
        return f"{parts[-2]}_{parts[-1]}"
    return parts[-1]


class KeywordsStoppingCriteria(StoppingCriteria):  # type: ignore[misc]
    """Stops when every row ends in one of the keywords, by its ids or within the text of its last tokens."""

    def __init__(self, keywords: Sequence[str], tokenizer: Tokenizer, input_ids: torch.Tensor) -> None:
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

    def __call__(self, output_ids: torch.Tensor, scores: torch.Tensor | None = None, **kwargs: Any) -> bool:
        """Return whether each row of ``output_ids`` (B, t) ends in a keyword."""
        output_ids = output_ids.cpu()  # a GPU is waited for once, not at every row and keyword
        return all(self.call_for_batch(row[None], scores, **kwargs) for row in output_ids)

    def call_for_batch(self, output_ids: torch.Tensor, scores: torch.Tensor | None, **kwargs: Any) -> bool:
        """Return whether the one row of ``output_ids`` (1, t) ends in a keyword."""
        (row,) = output_ids.cpu()
        new = len(row) - self.start_len
        if new < 0:  # the model was given embeddings: the row holds new tokens only
            new = len(row)
        tail = row[-min(new, self.max_keyword_len) :]  # all of the row where nothing is new, as upstream
        for ids in self.keyword_ids:
            if torch.equal(row[-len(ids) :], ids):
                return True
        text = self.tokenizer.batch_decode(tail[None], skip_special_tokens=True)[0]
        return any(keyword in text for keyword in self.keywords)
