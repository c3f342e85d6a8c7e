"""LLaVAs whose tower has more patches than the other tests' do, of every kind of vision tower."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel, SiglipVisionModel

from tests.fixtures.tiny_models import siglip_config

TOWER_SIDE, PER_SIDE = 24, 6
SIZES = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 2}


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory) -> Path:
    """A CLIP tower of 6 x 6 patches and three layers."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(3)
    patch = TOWER_SIDE // PER_SIDE
    config = CLIPVisionConfig(
        image_size=TOWER_SIDE, patch_size=patch, projection_dim=24, initializer_range=0.4, **SIZES
    )
    CLIPVisionModel(config).save_pretrained(folder)
    crop = {"height": TOWER_SIDE, "width": TOWER_SIDE}
    CLIPImageProcessorPil(size={"shortest_edge": TOWER_SIDE}, crop_size=crop).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def siglip_folder(tmp_path_factory) -> Path:
    """A SigLIP tower of 6 x 6 patches and three layers."""
    folder = tmp_path_factory.mktemp("siglip")
    torch.manual_seed(3)
    SiglipVisionModel(siglip_config(TOWER_SIDE, patch_size=TOWER_SIDE // PER_SIDE)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_patched(make_llava, clip_folder, siglip_folder) -> Callable[..., Any]:
    """``make_patched(siglip=False, **changes)``: an adaptive LLaVA whose images have 36 tokens."""

    def make(siglip: bool = False, **changes: Any) -> Any:
        folder = siglip_folder if siglip else clip_folder
        return make_llava("H", **{"mm_vision_tower": str(folder), **changes})

    return make


@pytest.fixture(scope="session")
def patched(make_patched) -> Any:
    """An adaptive LLaVA with a CLIP tower. Nothing of it may be changed."""
    return make_patched()


@pytest.fixture(scope="session")
def pixels_of() -> Callable[..., torch.Tensor]:
    """``pixels_of(n, seed=0)``: n images, or crops of one."""

    def make(count: int, seed: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, 3, TOWER_SIDE, TOWER_SIDE, generator=generator)

    return make
