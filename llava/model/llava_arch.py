"""Makes a language model a LLaVA: vision tower, projector, and image features merged into the decoder's inputs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Cache

from llava.constants import (
    DEFAULT_IM_END_TOKEN,
    DEFAULT_IM_START_TOKEN,
    DEFAULT_IMAGE_PATCH_TOKEN,
    IMAGE_TOKEN_INDEX,
)
from llava.errors import CheckpointError, ImageError
from llava.model.checkpoint.weights_io import load_exactly, read_weights, report_misfits
from llava.model.checkpoint.zero3 import gathered_parameters
from llava.model.embedding_rows import copy_new_rows, fill_new_rows
from llava.model.multimodal.anyres_merge import merge_crops
from llava.model.multimodal.anyres_merge import unpad_image as unpad_image
from llava.model.multimodal.aspect_ratio import max_crops
from llava.model.multimodal.image_token_counts import CountsImageTokens
from llava.model.multimodal.merge_inputs import splice
from llava.model.multimodal_encoder.builder import build_vision_tower
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.model.multimodal_projector.builder import build_vision_projector
from llava.protocols import Images, ImageSizes, MultimodalConfig, Tokenizer, VisionArguments


class LlavaMetaModel:
    """Mixed in before a decoder (``LlamaModel``): adds ``vision_tower``, ``mm_projector``, ``image_newline``."""

    config: Any

    def __init__(self, config: MultimodalConfig) -> None:
        super().__init__(config)  # type: ignore[call-arg]
        if getattr(config, "mm_vision_tower", None):
            self.vision_tower = build_vision_tower(config, delay_load=True)
            self._make_projector()

    def get_vision_tower(self) -> CLIPVisionTower | None:
        """Return the tower, its weights perhaps not read yet; None for a plain language model."""
        return getattr(self, "vision_tower", None)

    def _make_projector(self) -> None:
        """Add what turns image features into the decoder's space. Raises CheckpointError for what is not supported."""
        resampler = getattr(self.config, "mm_resampler_type", None)
        if resampler:
            raise CheckpointError(
                f"mm_resampler_type is {resampler!r}, which is not supported; expected none, as of models for images"
            )
        self.mm_projector = build_vision_projector(self.config)
        self._make_newline()

    def _make_newline(self) -> None:
        """Add what ends a line of patches, where they are merged with it and there is none yet."""
        unpads = "unpad" in (getattr(self.config, "mm_patch_merge_type", None) or "flat")
        if unpads and not hasattr(self, "image_newline"):
            size = self.config.hidden_size
            self.image_newline = nn.Parameter(torch.randn(size) / math.sqrt(size))

    def initialize_vision_modules(self, model_args: VisionArguments, fsdp: object = None) -> None:
        """Add, or complete, what training needs; ``model_args``: ``llava.train.arguments.ModelArguments``.

        The tower is read, the config gets its settings, and the projector is made where there is none, then filled
        from ``pretrain_mm_mlp_adapter`` where that is given. Raises CheckpointError for a tower or a type of projector
        that an existing projector does not fit.
        """
        config = self.config
        projector_type = self._fitting_projector_type(getattr(model_args, "mm_projector_type", None))
        config.mm_vision_tower = model_args.vision_tower
        config.mm_vision_select_layer = model_args.mm_vision_select_layer
        config.mm_vision_select_feature = model_args.mm_vision_select_feature
        config.mm_patch_merge_type = model_args.mm_patch_merge_type
        config.mm_projector_type = projector_type
        config.use_mm_proj = True
        tower = self.get_vision_tower()
        if tower is None or tower.vision_tower_name != model_args.vision_tower:
            tower = self.vision_tower = build_vision_tower(model_args)
        tower.select_layer = config.mm_vision_select_layer
        tower.select_feature = config.mm_vision_select_feature
        tower.load_model()
        if getattr(self, "mm_projector", None) is None:
            config.mm_hidden_size = tower.hidden_size
            self._make_projector()
        elif tower.hidden_size != config.mm_hidden_size:
            raise CheckpointError(
                f"the features of {model_args.vision_tower} have width {tower.hidden_size}, and the model's projector "
                f"takes {config.mm_hidden_size}; leave --vision_tower out, or train a projector for it on the language "
                "model alone"
            )
        self._make_newline()  # a LLaVA that was trained with "flat" has a projector, and no newline
        self.mm_projector.requires_grad_(True)
        if model_args.pretrain_mm_mlp_adapter:
            self.load_projector(Path(model_args.pretrain_mm_mlp_adapter))

    def _fitting_projector_type(self, asked: str | None) -> str:
        """Return the type that the config is to name. Raises CheckpointError where the projector is of another."""
        if getattr(self, "mm_projector", None) is None:
            return asked or "linear"
        own: str = getattr(self.config, "mm_projector_type", None) or "linear"
        if asked not in (None, own):
            raise CheckpointError(
                f"--mm_projector_type is {asked!r}, and the projector that the model has is of type {own!r}; give "
                "that, or leave --vision_tower and --mm_projector_type out to keep the model's settings"
            )
        return own

    def load_projector(self, path: Path) -> None:
        """Fill the projector (and ``image_newline``) from a projector-only file, ``mm_projector.{bin,safetensors}``.

        Raises CheckpointError where keys or shapes do not fit.
        """
        tensors = read_weights(path)
        marker = "mm_projector."
        found = {key.partition(marker)[2]: value for key, value in tensors.items() if marker in key}
        load_exactly(self.mm_projector, found, str(path), f"model.{marker}")
        for key, value in tensors.items():
            if key.endswith("image_newline") and hasattr(self, "image_newline"):
                with gathered_parameters([self.image_newline]):
                    if value.shape != self.image_newline.shape:
                        report_misfits(str(path), wrong_shapes=[(key, value.shape, self.image_newline.shape)])
                    self.image_newline.data.copy_(value)


class LlavaMetaForCausalLM(CountsImageTokens):
    """Mixed into a causal language model whose ``model`` is a ``LlavaMetaModel``."""

    def get_model(self) -> Any:
        """Return the decoder with its vision tower and projector."""
        return self.model  # type: ignore[attr-defined]

    def get_vision_tower(self) -> CLIPVisionTower | None:
        """Return the vision tower, its weights perhaps not read yet; None for a plain language model."""
        tower: CLIPVisionTower | None = self.get_model().get_vision_tower()
        return tower

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Encode pixels (N, 3, S, S) as features in the language model's space (N, P, D).

        Raises CheckpointError where the tower's features have another width than the projector takes.
        """
        features = self.tower_features(self._loaded_tower(), images)
        dtype = self.get_input_embeddings().weight.dtype  # type: ignore[attr-defined]
        try:
            projected: torch.Tensor = self.get_model().mm_projector(features.to(dtype))
        except RuntimeError as error:
            if features.shape[-1] == self.config.mm_hidden_size:
                raise
            raise CheckpointError(
                f"mm_hidden_size is {self.config.mm_hidden_size}, but the vision tower's features have width "
                f"{features.shape[-1]}; is it another tower, or has it other s2_scales, than in training?"
            ) from error
        return projected

    def tower_features(self, tower: CLIPVisionTower, pixels: torch.Tensor) -> torch.Tensor:
        """Run the vision tower on pixels (N, 3, S, S): features (N, P, C); the part of ``encode_images`` to extend."""
        features: torch.Tensor = tower(pixels)
        return features

    def _loaded_tower(self) -> CLIPVisionTower:
        tower = self._tower()
        if not tower.is_loaded:
            raise CheckpointError("the vision tower's weights are not read yet; call get_vision_tower().load_model()")
        return tower

    def image_features(self, images: Images, image_sizes: ImageSizes | None = None) -> list[torch.Tensor]:
        """Encode images as one (n, D) tensor of features each.

        images: (N, 3, S, S); or a list of images, each (3, S, S) or its crops (n, 3, S, S); or (N, n, 3, S, S).
        image_sizes: each image's (width, height), which merging crops in space needs.
        """
        if isinstance(images, torch.Tensor) and images.dim() == 4:
            return list(self.encode_images(images))
        crops = [image[None] if image.dim() == 3 else image for image in images]
        features = torch.split(self.encode_images(torch.cat(crops)), [len(image) for image in crops])
        merge_type = self._merge_type
        sizes = [None] * len(crops) if image_sizes is None else image_sizes
        if len(sizes) != len(crops):
            raise ImageError(f"{len(crops)} image(s) were given with {len(sizes)} image_sizes")
        return [
            merge_crops(
                part,
                merge_type,
                grid=self._crop_grid(size) if merge_type != "flat" and len(part) > 1 else None,
                image_size=size,
                newline=getattr(self.get_model(), "image_newline", None),
                max_crops=max_crops(self.config),
            )
            for part, size in zip(features, sizes, strict=True)
        ]

    def prepare_inputs_labels_for_multimodal(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        past_key_values: Cache | None,
        labels: torch.Tensor | None,
        images: Images | None,
        image_sizes: ImageSizes | None = None,
    ) -> tuple[Any, ...]:
        """Merge token ids (B, t) and images: (None, position_ids, attention_mask, past_key_values, embeds, labels).

        Embeddings are (B, T, D), the rest (B, T). What was given as None is None in the answer, but for the mask of
        a batch that had to be padded. Without images, and for a decoding step of one token, all is handed back. Rows
        with labels, which are training's, are cut at ``tokenizer_model_max_length``; others never are.
        """
        as_given = input_ids, position_ids, attention_mask, past_key_values, None, labels
        single = input_ids.shape[1] == 1
        if single and past_key_values is not None:
            return as_given  # a decoding step: not even looked at, as that would wait for the GPU
        tags = int((input_ids == IMAGE_TOKEN_INDEX).sum())
        if images is None and tags:
            raise ImageError(f"{tags} image tag(s) in the prompt, but no image given")
        if images is None or self.get_vision_tower() is None or (single and not tags):
            return as_given
        spliced = splice(
            input_ids,
            attention_mask,
            labels,
            self.image_features(images, image_sizes),
            lambda ids: self.get_model().embed_tokens(ids[None])[0],  # a batch, as hooks such as NEFTune's expect
            # Where training cuts its samples. A prompt to answer has no labels, and is never cut.
            max_length=None if labels is None else getattr(self.config, "tokenizer_model_max_length", None),
            padding_side=getattr(self.config, "tokenizer_padding_side", "right"),
        )
        mask: torch.Tensor | None = spliced.attention_mask
        if attention_mask is not None:
            mask = spliced.attention_mask.to(attention_mask.dtype)
        elif bool(spliced.attention_mask.all()):
            mask = None
        positions = None if position_ids is None else spliced.position_ids
        return None, positions, mask, past_key_values, spliced.embeds, spliced.labels

    def initialize_vision_tokenizer(self, model_args: VisionArguments, tokenizer: Tokenizer) -> None:
        """Add the image tokens that ``model_args`` ask for, and set which embeddings learn.

        New rows start as the mean of the old ones, or as ``pretrain_mm_mlp_adapter`` has them.
        """
        if model_args.mm_use_im_patch_token:
            tokenizer.add_tokens([DEFAULT_IMAGE_PATCH_TOKEN], special_tokens=True)
            self.resize_token_embeddings(len(tokenizer))  # type: ignore[attr-defined]
        new = 0
        if model_args.mm_use_im_start_end:
            known = len(tokenizer)
            tokenizer.add_tokens([DEFAULT_IM_START_TOKEN, DEFAULT_IM_END_TOKEN], special_tokens=True)
            new = len(tokenizer) - known  # add_tokens also counts a known token that becomes special
            self.resize_token_embeddings(len(tokenizer))  # type: ignore[attr-defined]
        inputs = self.get_input_embeddings().weight  # type: ignore[attr-defined]
        outputs = self.get_output_embeddings().weight  # type: ignore[attr-defined]
        if new:
            fill_new_rows((inputs, outputs), new)
            if model_args.pretrain_mm_mlp_adapter:
                with gathered_parameters([inputs]):
                    copy_new_rows(inputs.data, new, Path(model_args.pretrain_mm_mlp_adapter))
        if model_args.tune_mm_mlp_adapter and (model_args.mm_use_im_start_end or model_args.mm_use_im_patch_token):
            inputs.requires_grad_(bool(model_args.mm_use_im_start_end))
            outputs.requires_grad_(False)
