"""Makes decoders with random weights to time: a stack with 7B layer shapes, and a LLaVA of about 1B."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from ada.config import AdaLlavaConfig
from ada.cost.sizes import CLIP_L_336
from ada.execution.layer_weights import joined
from ada.model.modeling import AdaLlavaLlamaForCausalLM
from llava.model.multimodal_encoder.vision_holder import VisionModelHolder

SHAPES_7B = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
}
SHAPES_1B = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 18,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
}
RANK = 8
CPU = torch.device("cpu")
LAYER_BYTES = 2 * (4 * 4096**2 + 3 * 4096 * 11008)  # of a 7B layer in bfloat16
MEMORY_SHARE = 0.6  # of what is free, for weights and their narrow copies


def layers_that_fit(max_layers: int = 32, device: torch.device = CPU) -> int:
    """Return an even number of 7B layers whose weights, and narrow copies of half of them, fit in free memory."""
    on_gpu = device.type == "cuda"
    free = MEMORY_SHARE * (torch.cuda.mem_get_info(device)[0] if on_gpu else psutil.virtual_memory().available)
    return max(2, min(max_layers, int(free / (1.5 * LAYER_BYTES)) // 2 * 2))


@dataclass
class Models:
    """Three views of the same weights: transformers' plain model, and the overlay with either kind of scheduler."""

    plain: LlamaForCausalLM
    ada: dict[str, AdaLlavaLlamaForCausalLM]

    @classmethod
    @torch.inference_mode(False)  # ordinary parameters, wherever they are made
    @torch.no_grad()
    def make(
        cls,
        layers: int,
        device: torch.device = CPU,
        dtype: torch.dtype = torch.bfloat16,
        sizes: Mapping[str, int] | None = None,
    ) -> Models:
        """Make a stack of ``layers`` layers with random weights, which all views share, on ``device``.

        sizes: of a layer, by default those of a 7B model.
        """
        sizes = {**(sizes or SHAPES_7B), "num_hidden_layers": layers, "pad_token_id": 0}
        torch.manual_seed(0)
        with device:
            plain = LlamaForCausalLM._from_config(LlamaConfig(**sizes), dtype=dtype).eval()
        for layer in plain.model.layers:
            joined(layer)  # before the views are made: each of them would join copies
        return cls(plain, {kind: cls._overlaid(plain, kind, sizes) for kind in ("L", "H")})

    @staticmethod
    def _overlaid(plain: LlamaForCausalLM, kind: str, sizes: Mapping[str, int]) -> AdaLlavaLlamaForCausalLM:
        dtype, device = plain.dtype, plain.device
        config = AdaLlavaConfig(**sizes, scheduler_type=kind, scheduler_rank=RANK, dtype=dtype)
        with torch.device("meta"):
            model = AdaLlavaLlamaForCausalLM(config)
        shapes = {key: value.shape for key, value in model.state_dict().items() if key.startswith("scheduler.")}
        scheduler = {key: 0.02 * torch.randn(shape, dtype=dtype, device=device) for key, shape in shapes.items()}
        model.load_state_dict(plain.state_dict() | scheduler, assign=True)
        model.model.rotary_emb = plain.model.rotary_emb  # its buffers are not in the state dict
        model.eval()
        return model


def random_llava(
    kind: str, device: torch.device = CPU, sizes: Mapping[str, int] | None = None
) -> AdaLlavaLlamaForCausalLM:
    """Make a LLaVA of random weights in bfloat16, with a scheduler of ``kind`` (H or L).

    A decoder of these sizes, by default of about a billion weights; vision tower and projector of LLaVA-1.5's shapes.
    """
    torch.manual_seed(0)
    images = {"mm_vision_tower": "random", "mm_vision_select_layer": -2, "mm_projector_type": "mlp2x_gelu"}
    images["mm_hidden_size"] = CLIP_L_336["hidden_size"]
    settings: dict[str, Any] = (
        {**(sizes or SHAPES_1B)} | images | {"scheduler_rank": RANK, "pad_token_id": 0, "dtype": "bfloat16"}
    )
    with device:
        config = AdaLlavaConfig(**settings, scheduler_type=kind)
        model: AdaLlavaLlamaForCausalLM = AdaLlavaLlamaForCausalLM._from_config(config, dtype=torch.bfloat16).eval()
        _fill_tower(model)
    return model


def _fill_tower(model: AdaLlavaLlamaForCausalLM) -> None:
    """Give a model's vision tower random weights: there is no folder to read them from."""
    tower, config = model.get_vision_tower(), CLIPVisionConfig(**CLIP_L_336)
    assert tower is not None
    tower.describe(config, CLIPImageProcessorPil(size=config.image_size, crop_size=config.image_size))
    tower.vision_tower = VisionModelHolder(CLIPVisionModel._from_config(config, dtype=torch.bfloat16))
    tower.is_loaded = True
