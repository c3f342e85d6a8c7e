"""The SigLIP tower: chosen by what its config says, its features, and what of it a checkpoint holds."""

import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel, SiglipVisionModel

from llava.errors import CheckpointError
from llava.model import LlavaQwenForCausalLM
from llava.model.consolidate import consolidate_ckpt
from llava.model.multimodal_encoder import builder
from llava.model.multimodal_encoder.builder import build_vision_tower
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.model.multimodal_encoder.siglip_encoder import SigLipVisionTower
from tests.fixtures.tiny_models import siglip_config, write_siglip_tower

TENSOR = "model.vision_tower.vision_tower.vision_model."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A SigLIP tower whose folder is named after CLIP."""
    path = tmp_path_factory.mktemp("towers") / "openai-clip"
    write_siglip_tower(path)
    return path


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint):
    return make_checkpoint(LlavaQwenForCausalLM, siglip=True, num_key_value_heads=2)


@pytest.mark.parametrize("layer", [-1, -2, -3, 0, 2, 3])
@pytest.mark.parametrize("feature", ["patch", "cls_patch"])
def test_tower_features_are_those_of_the_selected_layer(folder, pixels, make_config, layer, feature):
    changes = {"mm_vision_select_layer": layer, "mm_vision_select_feature": feature}
    tower = build_vision_tower(make_config(mm_vision_tower=str(folder), **changes))
    assert type(tower) is SigLipVisionTower
    states = SiglipVisionModel.from_pretrained(folder)(pixels, output_hidden_states=True).hidden_states
    assert torch.equal(tower(pixels), states[layer])
    torch.testing.assert_close(torch.cat(tower(list(pixels))), states[layer])
    assert tower.num_image_tokens == tower.num_patches == states[layer].shape[1]


def test_outputs_of_another_size_are_those_with_interpolated_positions(folder, make_config):
    tower = build_vision_tower(make_config(mm_vision_tower=str(folder)))
    large = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    states = SiglipVisionModel.from_pretrained(folder)(
        large, interpolate_pos_encoding=True, output_hidden_states=True
    ).hidden_states
    assert torch.equal(tower.outputs(large, other_size=True).hidden_states[2], states[2])
    with pytest.raises(RuntimeError):
        tower(large)


def test_tower_features_are_those_of_llava_next(folder, pixels, make_config):
    """It deletes the last layer and the head, and takes the last hidden state."""
    model = SiglipVisionModel.from_pretrained(folder)
    del model.encoder.layers[-1:]
    expected = model(pixels, output_hidden_states=True).hidden_states[-1]
    tower = build_vision_tower(make_config(mm_vision_tower=str(folder)))
    assert torch.equal(tower(pixels), expected)
    assert torch.equal(tower.feature_select(tower.vision_tower(pixels, output_hidden_states=True)), expected)
    assert len(tower.vision_tower.vision_model.encoder.layers) == 2 and tower.config.num_hidden_layers == 3


def test_tower_pixels_are_siglips(folder, make_config):
    processor = build_vision_tower(make_config(mm_vision_tower=str(folder)), delay_load=True).image_processor
    assert isinstance(processor, SiglipImageProcessorPil) and list(processor.image_mean) == [0.5, 0.5, 0.5]
    assert processor.crop_size["height"] == processor.crop_size["width"] == 16, "as data sets of LLaVA-NeXT's read it"
    image = Image.effect_noise((40, 30), 90).convert("RGB")
    expected = SiglipImageProcessorPil.from_pretrained(folder)(image, return_tensors="pt")["pixel_values"]
    assert torch.equal(processor(image, return_tensors="pt")["pixel_values"], expected)


def test_tower_of_a_text_and_image_model_is_its_vision_part(tmp_path, pixels, make_config):
    """As the hub's ``google/siglip-so400m-patch14-384`` is."""
    text = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=siglip_config().to_dict())).eval()
    model.save_pretrained(tmp_path)
    tower = build_vision_tower(make_config(mm_vision_tower=str(tmp_path)))
    states = model.vision_model(pixels, output_hidden_states=True).hidden_states
    assert torch.equal(tower(pixels), states[-2])


def test_tower_of_another_kind_raises(tmp_path, make_config):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dinov2"}))
    with pytest.raises(CheckpointError, match="model_type 'dinov2'; expected one of clip"):
        build_vision_tower(make_config(mm_vision_tower=str(tmp_path)), delay_load=True)


def test_tower_without_a_kind_is_clips(tiny_checkpoint, tmp_path, make_config):
    fields = json.loads((tiny_checkpoint / "tower" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**fields, "model_type": None}))
    tower = build_vision_tower(make_config(mm_vision_tower=str(tmp_path)), delay_load=True)
    assert type(tower) is CLIPVisionTower


def test_checkpoint_holds_the_layers_that_are_used(checkpoint):
    names = [name.removeprefix(TENSOR) for name in load_file(checkpoint / "model.safetensors") if TENSOR in name]
    assert {name.split(".")[2] for name in names if name.startswith("encoder")} == {"0", "1"}
    assert not any(name.startswith("head.") for name in names)
    assert json.loads((checkpoint / "vision_tower" / "config.json").read_text())["num_hidden_layers"] == 3


def test_tower_reads_a_checkpoint_with_all_of_its_layers(checkpoint, pixels, make_config, tmp_path):
    """Layers that are not used may be there; ones that no config knows may not."""
    config = make_config(LlavaQwenForCausalLM.config_class)
    config._name_or_path = str(tmp_path)
    write_siglip_tower(tmp_path / "tower", seed=3)
    model = SiglipVisionModel.from_pretrained(tmp_path / "tower")
    tensors = {TENSOR + name: tensor + 0.1 for name, tensor in model.state_dict().items()}
    model.load_state_dict({name.removeprefix(TENSOR): tensor for name, tensor in tensors.items()})
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    tower = build_vision_tower(config)
    assert torch.equal(tower(pixels), model(pixels, output_hidden_states=True).hidden_states[-2])
    save_file({**tensors, f"{TENSOR}more.bias": torch.zeros(2)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="left over"):
        build_vision_tower(config)


def test_tower_asked_for_a_layer_that_it_did_not_read_raises(folder, pixels, make_config):
    tower = build_vision_tower(make_config(mm_vision_tower=str(folder)))
    tower.select_layer = -1
    with pytest.raises(CheckpointError, match="mm_vision_select_layer is -1; the tower was read with its first 2"):
        tower(pixels)


@pytest.mark.parametrize("is_cached", [True, False])
def test_hub_is_asked_only_for_a_tower_that_was_never_read(monkeypatch, make_config, is_cached):
    asked = []

    def get_config_dict(location, local_files_only=False):
        asked.append((location, local_files_only))
        if local_files_only and not is_cached:
            raise OSError("not in the cache")
        return {"model_type": "siglip"}, {}

    monkeypatch.setattr(builder.PretrainedConfig, "get_config_dict", get_config_dict)
    tower = build_vision_tower(make_config(mm_vision_tower="google/siglip"), delay_load=True)
    assert type(tower) is SigLipVisionTower
    assert asked == [("google/siglip", True), ("google/siglip", False)][: 1 if is_cached else 2]


def test_consolidate_does_not_look_for_the_tower(checkpoint, tmp_path, monkeypatch):
    source = shutil.copytree(checkpoint, tmp_path / "source")
    path = source / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "mm_vision_tower": "google/siglip"}))
    monkeypatch.setattr(builder.PretrainedConfig, "get_config_dict", lambda *_, **__: pytest.fail("asked the hub"))
    consolidate_ckpt(str(source), str(tmp_path / "new"))
    assert json.loads((tmp_path / "new" / "config.json").read_text())["mm_vision_tower"] == "google/siglip"
