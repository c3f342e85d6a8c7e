"""Declares the types that functions take: models, configs, vision towers, image processors, tokenizers.

transformers' own classes are not annotated for type checkers, and a function serves models of several families, so
each protocol names the part of an object that this project relies on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import nn

Images = torch.Tensor | Sequence[torch.Tensor]
"""Pixels (N, 3, S, S); or one tensor an image, (3, S, S) or its crops (n, 3, S, S)."""

ImageSizes = Sequence[tuple[int, int]]
"""Each image's (width, height) in pixels."""


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

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of config.json."""


class TowerSettings(Protocol):
    """What a vision tower reads of a LLaVA's config, or of training's arguments.

    ``mm_vision_select_feature`` and the tower's name may be missing.
    """

    mm_vision_select_layer: int


class ProjectorSettings(Protocol):
    """What a projector reads of a LLaVA's config; ``mm_projector_type`` may be missing."""

    mm_hidden_size: int
    hidden_size: int


class MultimodalConfig(DecoderConfig, TowerSettings, ProjectorSettings, Protocol):
    """A LLaVA's config: the fields of its decoder, vision tower and projector."""


class VisionArguments(Protocol):
    """What a model reads of ``llava.train.arguments.ModelArguments`` to add vision tower and projector."""

    vision_tower: str | None
    mm_vision_select_layer: int
    mm_vision_select_feature: str | None
    mm_patch_merge_type: str | None
    pretrain_mm_mlp_adapter: str | None
    mm_use_im_patch_token: bool
    mm_use_im_start_end: bool
    tune_mm_mlp_adapter: bool


class ImageProcessor(Protocol):
    """Turns images into pixels (N, 3, S, S), with the vision tower's size, mean and deviation."""

    image_mean: Sequence[float]
    crop_size: Mapping[str, int]
    size: Mapping[str, int]
    resample: Any

    def __call__(self, images: Image.Image | Sequence[Image.Image], return_tensors: str) -> Mapping[str, Any]:
        """Return ``pixel_values``: (N, 3, S, S)."""

    def preprocess(self, images: Image.Image | Sequence[Image.Image], return_tensors: str) -> Mapping[str, Any]:
        """Return ``pixel_values``: (N, 3, S, S); another name of calling the processor."""


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

    def __len__(self) -> int:
        """Count the vocabulary, added tokens included."""

    def __call__(self, text: str, **options: Any) -> Any:
        """Tokenize ``text``; the result's ``input_ids`` are its token ids."""

    def decode(self, token_ids: Sequence[int], **options: Any) -> str:
        """Turn one row of token ids into text."""

    def batch_decode(self, sequences: torch.Tensor | Sequence[Sequence[int]], **options: Any) -> list[str]:
        """Turn rows of token ids into texts."""

    def add_special_tokens(self, special_tokens_dict: Mapping[str, str]) -> int:
        """Name special tokens, such as the padding token, and return how many were added."""

    def add_tokens(self, new_tokens: Sequence[str], special_tokens: bool = False) -> int:
        """Add tokens that the vocabulary lacks, and return how many were added."""

    def save_pretrained(self, save_directory: str | Path) -> Any:
        """Write the tokenizer's files into a folder."""


class VisionTower(Protocol):
    """Pixels -> features of one of its layers (``llava.model.multimodal_encoder.clip_encoder.CLIPVisionTower``)."""

    config: Any
    select_feature: str
    is_loaded: bool

    @property
    def image_processor(self) -> Any:
        """The processor that makes its pixels."""

    @property
    def layers_run(self) -> int:
        """Layers up to the one whose output is used."""

    @property
    def crops_per_image(self) -> int:
        """Crops of the tower's image size that it reads for one of its inputs."""

    @property
    def num_patches(self) -> int:
        """Patches of one crop."""

    @property
    def num_image_tokens(self) -> int:
        """Decoder positions of one crop, or of an image that is not cut into crops."""


class LlavaModel(Protocol):
    """A LLaVA of any decoder family, as ``load_pretrained_model`` returns it."""

    config: Any
    generation_config: Any
    model: Any

    @property
    def device(self) -> torch.device:
        """Where the weights are."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""

    def __call__(self, **kwargs: Any) -> Any:
        """Run a forward pass, with transformers' keyword arguments and outputs."""

    def generate(self, inputs: torch.Tensor | None = None, **kwargs: Any) -> Any:
        """Continue the prompts ``inputs`` (B, t); what is returned holds the new tokens only."""

    def get_vision_tower(self) -> Any:
        """Return the ``VisionTower``; None for a language model without one."""

    def max_image_tokens(self, size: tuple[int, int], num_images: int = 1) -> int:
        """Return how many decoder positions one of a prompt's images, of (width, height), takes."""

    def get_input_embeddings(self) -> Any:
        """Return the module that turns token ids into embeddings."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Iterate over names and parameters, as torch modules do."""
