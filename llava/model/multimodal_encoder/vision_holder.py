"""Holds transformers' vision model under the name that LLaVA's checkpoints give it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import CLIPVisionModel
from transformers.modeling_outputs import ModelOutput


class VisionModelHolder(nn.Module):
    """Holds transformers' vision model under the name ``vision_model``.

    transformers 5 dropped that level from its own module tree; LLaVA's checkpoints have it in every key. With the
    holder the keys in memory and on disk are upstream's, whoever writes them.
    """

    def __init__(self, vision_model: CLIPVisionModel) -> None:
        super().__init__()
        self.vision_model = vision_model
        self.config = vision_model.config

    def forward(self, pixels: torch.Tensor, **kwargs: Any) -> Any:
        """Run transformers' vision model on pixels (N, 3, S, S), and list each hidden state once.

        Once the language model around the tower is asked for hidden states or attentions, transformers hooks the
        tower a second time, and lists everything twice.
        """
        outputs = self.vision_model(pixels, **kwargs)
        if isinstance(outputs, ModelOutput):
            for name in ("hidden_states", "attentions"):
                if outputs.get(name):
                    outputs[name] = tuple({id(tensor): tensor for tensor in outputs[name]}.values())
        return outputs

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        dtype: torch.dtype = self.vision_model.dtype
        return dtype

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        device: torch.device = self.vision_model.device
        return device
