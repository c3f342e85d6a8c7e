"""A tiny LLaVA with random weights: 2 decoder layers, a tower of 2 x 2 patches."""

import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel, PreTrainedTokenizerFast

from llava.model import LlavaConfig, LlavaLlamaForCausalLM

SIDE, HIDDEN, VOCABULARY = 16, 32, 60


def tower_config():
    return CLIPVisionConfig(
        image_size=SIDE,
        patch_size=SIDE // 2,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        projection_dim=24,
    )


def llava_config(**changes):
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "rope_theta": 5000.0,
        "pad_token_id": 0,
        "initializer_range": 0.2,
        "mm_vision_tower": "tower",
        "mm_hidden_size": 24,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "image_aspect_ratio": "pad",
    }
    return LlavaConfig(**{**settings, **changes})


def tiny_tokenizer():
    words = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"w{number}": number for number in range(3, VOCABULARY)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>"
    )


@pytest.fixture(scope="session")
def make_config():
    """``make_config(**changes)``: the tiny LLaVA's config."""
    return llava_config


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """A whole checkpoint, its tower in the folder ``tower`` inside. Copy it before changing anything."""
    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    torch.manual_seed(0)
    CLIPVisionModel(tower_config()).save_pretrained(folder / "tower")
    size = {"height": SIDE, "width": SIDE}
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size).save_pretrained(folder / "tower")
    config = llava_config()
    config._name_or_path = str(folder)
    model = LlavaLlamaForCausalLM(config)
    model.get_vision_tower().load_model()
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


@pytest.fixture
def model(tiny_checkpoint):
    model = LlavaLlamaForCausalLM.from_pretrained(tiny_checkpoint).eval()
    model.get_vision_tower().load_model()
    return model


@pytest.fixture
def pixels():
    """Three images (3, 3, S, S)."""
    return torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
