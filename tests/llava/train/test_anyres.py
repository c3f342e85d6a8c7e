"""LLaVA-1.6's crops from training to an answer under a budget, for every way of merging and extreme images."""

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from llava.mm_utils import process_images
from llava.model import LlavaQwenForCausalLM
from llava.model.builder import load_pretrained_model

POINTS = [[16, 32], [32, 16], [32, 32]]
IMAGES = [(20, 30), (400, 3), (3, 400), (1, 1), (1000, 1000)]  # width, height
ADAPTIVE = {"scheduler_type": "H", "num_prefix_layers": 1, "scheduler_rank": 2}


@pytest.mark.parametrize("merge", ["flat", "spatial", "spatial_unpad"])
def test_train_save_load_and_answer_under_a_budget(trained, make_checkpoint, tmp_path, merge):
    flags = {"image_aspect_ratio": "anyres", "image_grid_pinpoints": str(POINTS), "mm_patch_merge_type": merge}
    base = make_checkpoint(mm_patch_merge_type=merge)
    out = trained(tmp_path / "out", **flags, **ADAPTIVE, model_name_or_path=base)
    answer_under_a_budget(out, flags)


def test_train_save_load_and_answer_under_a_budget_a_onevision(trained, make_checkpoint, tmp_path):
    """SigLIP, Qwen2 and a limit on the features, from a base that ties its output layer."""
    changes = {"mm_patch_merge_type": "spatial_unpad", "num_key_value_heads": 2, "tie_word_embeddings": True}
    base = make_checkpoint(LlavaQwenForCausalLM, siglip=True, **changes)
    flags = {"image_aspect_ratio": "anyres_max_2", "image_grid_pinpoints": "(1x1),...,(3x3)"}
    out = trained(tmp_path / "out", **flags, **ADAPTIVE, model_name_or_path=base, version="qwen_1_5")
    answer_under_a_budget(out, flags)


def test_stage_1_keeps_the_newline(trained, plain_base, tiny_checkpoint, tmp_path):
    """Its features were in what the projector learned from: the file opens next to its base, and stage 2 goes on."""
    flags = {
        "image_aspect_ratio": "anyres",
        "image_grid_pinpoints": str(POINTS),
        "mm_patch_merge_type": "spatial_unpad",
    }
    settings = {"model_name_or_path": plain_base, "vision_tower": tiny_checkpoint / "tower", **flags}
    settings |= {"mm_projector_type": "mlp2x_gelu", "mm_vision_select_layer": -2}
    stage_1 = {**settings, "tune_mm_mlp_adapter": True, "version": "plain"}
    out = trained(tmp_path / "stage-1", data="captions.json", **stage_1)
    saved = torch.load(out / "mm_projector.bin", weights_only=True)
    _, model, processor, _ = load_pretrained_model(str(out), str(plain_base), "any", device="cpu")
    assert torch.equal(model.model.image_newline, saved["model.image_newline"])
    assert isinstance(process_images([Image.new("RGB", (20, 30))], processor, model.config), torch.Tensor)
    stage_2 = {**settings, "pretrain_mm_mlp_adapter": out / "mm_projector.bin", "learning_rate": 0}
    full = trained(tmp_path / "stage-2", **stage_2)
    assert torch.equal(load_file(full / "model.safetensors")["model.image_newline"], saved["model.image_newline"])


def answer_under_a_budget(out, flags):
    """Ask the checkpoint in ``out``, trained with ``flags``, about each of the images."""
    _, model, processor, _ = load_pretrained_model(str(out), None, "any", device="cpu")
    model.generation_config.eos_token_id = None
    for size in IMAGES:
        pixels = process_images([Image.new("RGB", size, "red")], processor, model.config)
        found = model.generate(
            torch.tensor([[1, 5, -200, 7]]),
            images=pixels,
            image_sizes=[size],
            latency_budget=0.75,
            max_new_tokens=3,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
        )
        assert found.sequences.shape == (1, 3) and torch.stack(found.logits).isfinite().all(), size
        assert found.execution_plan.share <= 0.75 and found.report.masked_layers == 0
        features = model.image_features(pixels, [size])[0]
        assert found.report.prompt_tokens == 3 + len(features) + 1, "text, picture, latency token"
        assert len(features) == model.max_image_tokens(size)
    assert model.config.image_aspect_ratio == flags["image_aspect_ratio"]
