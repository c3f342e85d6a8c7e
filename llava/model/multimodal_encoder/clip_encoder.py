"""Runs the CLIP vision tower: pixels (N, 3, S, S) -> hidden states of one of its layers (N, patches, C)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from llava.errors import CheckpointError
from llava.model.checkpoint.folder import CheckpointFolder
from llava.model.multimodal_encoder.multiscale import merged_features, scaled_crops, scales_of
from llava.model.multimodal_encoder.states import TowerOutputs
from llava.model.multimodal_encoder.tower_files import (
    SAVED_FOLDER,
    folder_of_checkpoint,
    from_folder,
    read_tower,
    resolve_tower,
    tower_in_checkpoint,
)
from llava.model.multimodal_encoder.vision_holder import VisionModelHolder
from llava.protocols import TowerSettings


class CLIPVisionTower(nn.Module):
    """A vision tower whose weights are read when ``load_model`` is called, not when the tower is made.

    vision_tower: a folder (absolute, or relative to the checkpoint's own folder) or a hub name.
    args: the LLaVA config, or training arguments, with ``mm_vision_select_layer`` and, optionally,
    ``mm_vision_select_feature``: "patch" (without the class token) or "cls_patch".
    """

    # transformers' classes of this kind of tower. The processor is always PIL's: the torchvision backend gives other
    # pixels than LLaVA was trained on.
    config_class: ClassVar[Any] = CLIPVisionConfig
    model_class: ClassVar[Any] = CLIPVisionModel
    processor_class: ClassVar[Any] = CLIPImageProcessorPil

    def __init__(self, vision_tower: str, args: TowerSettings, delay_load: bool = False) -> None:
        super().__init__()
        self.is_loaded = False
        self.vision_tower_name = vision_tower
        self.checkpoint_folder = folder_of_checkpoint(args)
        self.select_layer: int = args.mm_vision_select_layer
        self.select_feature: str = getattr(args, "mm_vision_select_feature", None) or "patch"
        if self.select_feature not in ("patch", "cls_patch"):
            raise CheckpointError(
                f"mm_vision_select_feature is {self.select_feature!r}; expected 'patch' or 'cls_patch'"
            )
        self._cfg_only: CLIPVisionConfig | None = None
        self._processor: CLIPImageProcessorPil | None = None
        if not delay_load:
            self.load_model()

    @property
    def location(self) -> str:
        """The folder, where there is one, or the hub name that the tower is read from."""
        return resolve_tower(self.vision_tower_name, self.checkpoint_folder)

    @property
    def image_processor(self) -> CLIPImageProcessorPil:
        """The processor that makes the tower's pixels, read from the tower's folder."""
        if self._processor is None:
            self._processor = from_folder(self.processor_class, self.location)
        return self._processor

    def load_model(
        self, device_map: str | torch.device | None = None, checkpoint: CheckpointFolder | None = None
    ) -> None:
        """Read the weights: those of the LLaVA checkpoint, if it has any of the tower's, otherwise the tower's own.

        checkpoint: the LLaVA's folder, where it is open; by default the one that the config was read from.
        """
        if self.is_loaded:
            return
        if checkpoint is None and self.checkpoint_folder is not None:
            checkpoint = CheckpointFolder.open(self.checkpoint_folder, needs_config=False)
        holder = None
        if checkpoint is not None:
            holder = tower_in_checkpoint(checkpoint, lambda: self.model_class(self.config), self._used)
        if holder is None:
            holder = VisionModelHolder(self._used(read_tower(self.location, self.model_class)))
        if device_map is not None:
            holder.to(device_map)
        self.vision_tower = holder.requires_grad_(False).eval()
        self.is_loaded = True

    def _used(self, model: Any) -> Any:
        """Return the vision model without the parts that this kind of tower leaves out; CLIP's is complete."""
        return model

    def describe(self, config: CLIPVisionConfig, processor: CLIPImageProcessorPil) -> None:
        """Set config and processor, where no folder holds them by themselves."""
        self._cfg_only, self._processor = config, processor

    def save_description(self, folder: Path) -> None:
        """Write config and processor, so that a checkpoint that holds the weights needs no other folder."""
        self.config.save_pretrained(folder / SAVED_FOLDER)
        self.image_processor.save_pretrained(folder / SAVED_FOLDER)

    def feature_select(self, image_forward_outs: BaseModelOutputWithPooling | TowerOutputs) -> torch.Tensor:
        """Return hidden states of ``select_layer`` (N, 1 + patches, C), without the class token for "patch"."""
        hidden: torch.Tensor = image_forward_outs.hidden_states[self.layers_run]
        return hidden[:, 1:] if self.select_feature == "patch" else hidden

    @property
    def layers_run(self) -> int:
        """Layers up to the selected one; the output of those after it is not used."""
        count = self.config.num_hidden_layers
        if not isinstance(self.select_layer, int) or not -count - 1 <= self.select_layer <= count:
            raise CheckpointError(f"mm_vision_select_layer is {self.select_layer!r}; the tower has {count} layers")
        return range(count + 1)[self.select_layer]

    @torch.no_grad()
    def forward(self, images: torch.Tensor | list[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
        """Turn pixels (N, 3, S, S), or a list of (3, S, S), into features (N, P, C), or a list of (1, P, C).

        Features have the dtype of the pixels.
        """
        if isinstance(images, list):
            return [self._features(image[None]) for image in images]
        return self._features(images)

    def _features(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.feature_select(self.outputs(pixels)).to(pixels.dtype)

    def outputs(self, pixels: torch.Tensor, other_size: bool = False) -> TowerOutputs:
        """Return the hidden states of pixels (N, 3, S, S); each layer runs once a state after it is read.

        other_size: S is not the tower's own, and its table of positions is interpolated.
        """
        embedded = self._embedded(pixels.to(self.device, self.dtype), other_size)
        return TowerOutputs(embedded, self.vision_tower.vision_model.encoder.layers)

    def _embedded(self, pixels: torch.Tensor, other_size: bool = False) -> torch.Tensor:
        """Return the input of the first layer (N, 1 + patches, C)."""
        vision = self.vision_tower.vision_model
        embedded: torch.Tensor = vision.pre_layrnorm(vision.embeddings(pixels, interpolate_pos_encoding=other_size))
        return embedded

    @property
    def dummy_feature(self) -> torch.Tensor:
        """Zeros (1, C), with the tower's dtype and device."""
        return torch.zeros(1, self.hidden_size, device=self.device, dtype=self.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the tower's weights."""
        dtype: torch.dtype = self.vision_tower.vision_model.dtype
        return dtype

    @property
    def device(self) -> torch.device:
        """The device of the tower's weights."""
        device: torch.device = self.vision_tower.vision_model.device
        return device

    @property
    def config(self) -> CLIPVisionConfig:
        """The tower's own config, readable before the weights are."""
        if self.is_loaded:
            return self.vision_tower.config
        if self._cfg_only is None:
            self._cfg_only = from_folder(self.config_class, self.location)
        return self._cfg_only

    @property
    def hidden_size(self) -> int:
        """Width C of the tower's features."""
        return int(self.config.hidden_size)

    @property
    def input_side(self) -> int:
        """Side in pixels of the square images that it takes."""
        return int(self.config.image_size)

    @property
    def crops_per_image(self) -> int:
        """How many crops of the tower's own size it reads for one of its inputs."""
        return 1

    @property
    def num_patches_per_side(self) -> int:
        """Patches along one side of a crop."""
        return int(self.config.image_size // self.config.patch_size)

    @property
    def num_patches(self) -> int:
        """Patches of one crop, the class token not among them."""
        return self.num_patches_per_side**2

    @property
    def num_image_tokens(self) -> int:
        """Decoder positions of one crop, or of an image that is not cut: its patches, and the class token if kept."""
        return self.num_patches + (self.select_feature == "cls_patch")


class CLIPVisionTowerS2(CLIPVisionTower):
    """Reads an image at several sizes ("S2"): its features are those of all sizes, next to one another in width.

    args: also ``s2_scales``, sides in pixels such as "336,672,1008"; the smallest is the tower's own size. Larger ones
    are cut into crops of that size, and their features averaged down to its patches.
    """

    def __init__(self, vision_tower: str, args: TowerSettings, delay_load: bool = False) -> None:
        self.s2_scales = scales_of(getattr(args, "s2_scales", None))
        self.s2_split_size, self.s2_image_size = self.s2_scales[0], self.s2_scales[-1]
        super().__init__(vision_tower, args, delay_load)
        if self.select_feature != "patch":
            raise CheckpointError(
                f"mm_vision_select_feature is {self.select_feature!r}; with s2 it must be 'patch': the class token has "
                "no place in the image"
            )

    @property
    def image_processor(self) -> CLIPImageProcessorPil:
        """The tower's processor, for pixels of the largest size."""
        processor = super().image_processor
        processor.size = {"shortest_edge": self.s2_image_size}
        processor.crop_size = {"height": self.s2_image_size, "width": self.s2_image_size}
        return processor

    def load_model(
        self, device_map: str | torch.device | None = None, checkpoint: CheckpointFolder | None = None
    ) -> None:
        """Read the weights, as the plain tower's. Raises CheckpointError where its size is not the smallest scale."""
        super().load_model(device_map, checkpoint)
        if self.config.image_size != self.s2_split_size:
            raise CheckpointError(
                f"s2_scales begins with {self.s2_split_size}, but the vision tower reads images of "
                f"{self.config.image_size} pixels; the smallest scale must be that"
            )

    @torch.no_grad()
    def forward_feature(self, images: torch.Tensor) -> torch.Tensor:
        """Turn crops (n, 3, S, S) of the tower's own size S into features (n, P, C)."""
        return self._features(images)

    @torch.no_grad()
    def forward(self, images: torch.Tensor | list[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
        """Turn pixels (N, 3, L, L), or a list of (3, L, L), into features (N, P, scales * C), or a list of (1, ...)."""
        if isinstance(images, list):
            return [self._all_scales(image[None]) for image in images]
        return self._all_scales(images)

    def _all_scales(self, pixels: torch.Tensor) -> torch.Tensor:
        crops = [scaled_crops(pixels, scale, self.s2_split_size) for scale in self.s2_scales]
        return merged_features([self.forward_feature(part) for part in crops], len(pixels))

    @property
    def hidden_size(self) -> int:
        """Width of the features: C of each scale."""
        return int(self.config.hidden_size) * len(self.s2_scales)

    @property
    def input_side(self) -> int:
        """Side in pixels of the largest scale."""
        return self.s2_image_size

    @property
    def crops_per_image(self) -> int:
        """How many crops of the tower's own size it reads for one of its inputs, over all scales."""
        return sum((scale // self.s2_split_size) ** 2 for scale in self.s2_scales)
