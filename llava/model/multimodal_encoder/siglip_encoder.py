"""Runs the SigLIP vision tower: pixels (N, 3, S, S) -> hidden states of one of its layers (N, patches, C)."""

from __future__ import annotations

from typing import Any

import torch
from transformers import SiglipImageProcessorPil, SiglipVisionConfig, SiglipVisionModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from llava.errors import CheckpointError
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.model.multimodal_encoder.states import TowerOutputs


class SigLipVisionTower(CLIPVisionTower):
    """A SigLIP tower, which has no class token: every ``mm_vision_select_feature`` means all of its patches.

    It holds the layers up to the selected one, and not the pooling head. LLaVA-NeXT's checkpoints hold these tensors
    only, while the tower's config still counts every layer.
    """

    config_class = SiglipVisionConfig
    model_class = SiglipVisionModel
    processor_class = SiglipImageProcessorPil

    @property
    def image_processor(self) -> SiglipImageProcessorPil:
        """The processor that makes the tower's pixels; its ``crop_size``, which data sets read, is their size."""
        processor = super().image_processor
        if not processor.crop_size:
            processor.crop_size = dict(processor.size)
        return processor

    @property
    def layers_run(self) -> int:
        """Layers up to the selected one; those after it are not held."""
        count = super().layers_run
        held = len(self.vision_tower.vision_model.encoder.layers) if self.is_loaded else count
        if held < count:
            raise CheckpointError(
                f"mm_vision_select_layer is {self.select_layer!r}; the tower was read with its first {held} layers only"
            )
        return count

    def _used(self, model: Any) -> Any:
        del model.encoder.layers[self.layers_run :]
        if model.use_head:
            model.use_head = False
            del model.head
        return model

    def feature_select(self, image_forward_outs: BaseModelOutputWithPooling | TowerOutputs) -> torch.Tensor:
        """Return hidden states of ``select_layer`` (N, patches, C), the last that the tower's own model computes."""
        states: torch.Tensor = image_forward_outs.hidden_states[self.layers_run]
        return states

    def _embedded(self, pixels: torch.Tensor, other_size: bool = False) -> torch.Tensor:
        embeddings = self.vision_tower.vision_model.embeddings
        embedded: torch.Tensor = embeddings(pixels, interpolate_pos_encoding=other_size)
        return embedded

    @property
    def num_image_tokens(self) -> int:
        """Decoder positions of one crop, or of an image that is not cut: its patches."""
        return self.num_patches
