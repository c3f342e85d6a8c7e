"""Types of what the shell is given: models, configs, towers, tokenizers, as far as this project relies on them.

transformers' own classes are not annotated for type checkers, and models of several families come in one place, so
functions name the part of an object that they use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from PIL import Image
from torch import nn


class DecoderConfig(Protocol):
    """Sizes of a decoder-only language model, as transformers' configs name them."""

    model_type: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    max_position_embeddings: int

    def to_dict(self) -> dict[str, Any]: ...


class ImageProcessor(Protocol):
    """Turns images into pixels (N, 3, S, S), with the vision tower's size, mean and deviation."""

    image_mean: Sequence[float]
    crop_size: Mapping[str, int]
    size: Mapping[str, int]

    def preprocess(self, images: Image.Image | Sequence[Image.Image], return_tensors: str) -> Mapping[str, Any]: ...


class Tokenizer(Protocol):
    """What is used of transformers' tokenizers."""

    bos_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None
    unk_token: str | None
    pad_token: str | None
    eos_token: str | None
    model_max_length: int
    padding_side: str

    def __len__(self) -> int: ...

    def __call__(self, text: str, **options: Any) -> Any: ...

    def decode(self, token_ids: Sequence[int], **options: Any) -> str: ...

    def add_tokens(self, new_tokens: Sequence[str], special_tokens: bool = False) -> int: ...


class LlavaModel(Protocol):
    """A LLaVA of any decoder family, as ``load_pretrained_model`` returns it."""

    config: Any
    generation_config: Any
    model: Any

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def __call__(self, **kwargs: Any) -> Any: ...

    def generate(self, inputs: torch.Tensor | None = None, **kwargs: Any) -> Any: ...

    def get_vision_tower(self) -> Any: ...

    def get_input_embeddings(self) -> Any: ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...
