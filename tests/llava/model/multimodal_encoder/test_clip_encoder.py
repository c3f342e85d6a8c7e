"""The vision tower: where it is found, when it is read, what it gives."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessorPil, CLIPVisionModel

from llava.errors import CheckpointError
from llava.model.multimodal_encoder.builder import build_vision_tower
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.model.multimodal_encoder.tower_files import resolve_tower


@pytest.fixture
def config_at(make_config):
    """The config as it is read from a checkpoint's folder."""

    def make(folder, **changes):
        config = make_config(**changes)
        config._name_or_path = str(folder)
        return config

    return make


def test_tower_reads_no_weights_before_load_model(tiny_checkpoint, make_config):
    tower = build_vision_tower(make_config(mm_vision_tower="no/such/tower"), delay_load=True)
    assert not tower.is_loaded
    assert list(tower.parameters()) == []
    with pytest.raises(CheckpointError, match="no/such/tower"):
        tower.load_model()


def test_tower_properties_follow_its_config(tiny_checkpoint, config_at):
    delayed = CLIPVisionTower("tower", config_at(tiny_checkpoint), delay_load=True)
    for tower in (delayed, CLIPVisionTower("tower", config_at(tiny_checkpoint))):
        assert (tower.hidden_size, tower.num_patches, tower.num_patches_per_side) == (24, 4, 2)
        assert isinstance(tower.image_processor, CLIPImageProcessorPil)
        assert tower.config.image_size == 16
    assert tower.dummy_feature.shape == (1, 24)
    assert (tower.dtype, tower.device) == (torch.float32, torch.device("cpu"))
    assert not any(parameter.requires_grad for parameter in tower.parameters())


@pytest.mark.parametrize("layer", [-1, -2, 0, 2])
@pytest.mark.parametrize("feature", ["patch", "cls_patch"])
def test_tower_features_are_those_of_the_selected_layer(tiny_checkpoint, pixels, layer, feature, make_config):
    changes = {"mm_vision_select_layer": layer, "mm_vision_select_feature": feature}
    tower = CLIPVisionTower(str(tiny_checkpoint / "tower"), make_config(**changes))
    states = CLIPVisionModel.from_pretrained(tiny_checkpoint / "tower")(pixels, output_hidden_states=True).hidden_states
    expected = states[layer][:, 1:] if feature == "patch" else states[layer]
    assert torch.equal(tower(pixels), expected)
    one_by_one = tower(list(pixels))
    torch.testing.assert_close(torch.cat(one_by_one), expected)


def test_outputs_of_another_size_are_those_with_interpolated_positions(tiny_checkpoint, make_config):
    tower = CLIPVisionTower(str(tiny_checkpoint / "tower"), make_config())
    theirs = CLIPVisionModel.from_pretrained(tiny_checkpoint / "tower")
    for side in (8, 24):
        other = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
        states = theirs(other, interpolate_pos_encoding=True, output_hidden_states=True).hidden_states
        assert torch.equal(tower.outputs(other, other_size=True).hidden_states[2], states[2])
        with pytest.raises(ValueError, match="doesn't match"):
            tower(other)


def test_tower_features_have_the_dtype_of_the_pixels(tiny_checkpoint, pixels, config_at):
    tower = CLIPVisionTower("tower", config_at(tiny_checkpoint)).to(torch.bfloat16)
    assert tower(pixels).dtype == torch.float32


def test_tower_with_unknown_select_feature_raises(make_config):
    with pytest.raises(CheckpointError, match=r"'cls'; expected 'patch' or 'cls_patch'"):
        CLIPVisionTower("tower", make_config(mm_vision_select_feature="cls"), delay_load=True)


def test_tower_prefers_the_checkpoints_weights(checkpoint, pixels, make_config, config_at):
    """A tower that was trained along is in the checkpoint; without it there, the tower's own folder counts."""
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    key = "model.vision_tower.vision_tower.vision_model.pre_layrnorm.bias"
    tensors[key] += 1
    # A buffer that old releases saved.
    tensors["model.vision_tower.vision_tower.vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    save_file(tensors, path, {"format": "pt"})
    own = CLIPVisionTower(str(checkpoint / "tower"), make_config())
    tower = CLIPVisionTower("tower", config_at(checkpoint))
    assert torch.equal(tower.state_dict()[key.removeprefix("model.vision_tower.")], tensors[key])
    assert not torch.allclose(tower(pixels), own(pixels))
    save_file({key: value for key, value in tensors.items() if "vision" not in key}, path, {"format": "pt"})
    assert torch.equal(CLIPVisionTower("tower", config_at(checkpoint))(pixels), own(pixels))


@pytest.mark.parametrize("change", ["missing", "left over", "wrong shape"])
def test_tower_whose_tensors_do_not_fit_raises(checkpoint, change, config_at):
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    key = "model.vision_tower.vision_tower.vision_model.pre_layrnorm.bias"
    if change == "missing":
        del tensors[key]
    elif change == "left over":
        key = "model.vision_tower.more.bias"
        tensors[key] = torch.zeros(2)
    else:
        tensors[key] = torch.zeros(5)
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"{change}: .*{key.rpartition('.')[0]}"):
        CLIPVisionTower("tower", config_at(checkpoint))


def test_resolve_tower_looks_in_each_folder_in_turn(tmp_path, tiny_checkpoint, monkeypatch):
    """In the checkpoint, above it, in the current folder; described in the checkpoint; else a hub name."""
    (tmp_path / "models" / "run").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    checkpoint = tmp_path / "models" / "run"
    with pytest.raises(CheckpointError, match="no vision tower at 'tower'"):
        resolve_tower("tower", checkpoint)
    assert resolve_tower("owner/tower", checkpoint) == "owner/tower"
    for folder in (
        checkpoint / "vision_tower",
        tmp_path / "here" / "tower",
        tmp_path / "models" / "tower",
        checkpoint / "tower",
    ):
        shutil.copytree(tiny_checkpoint / "tower", folder)
        found = resolve_tower("tower", checkpoint)
        assert (tmp_path / "here" / found).samefile(folder)
    with pytest.raises(CheckpointError, match="no vision tower at"):
        resolve_tower(str(tmp_path / "missing"), None)


def test_tower_features_do_not_depend_on_hidden_states_asked_for(model, pixels):
    """transformers hooks the tower again then, and lists each of its hidden states twice."""
    before = model.encode_images(pixels)
    model.get_vision_tower().vision_tower(pixels, output_hidden_states=True)
    model(torch.tensor([[1, 5, 6]]), output_hidden_states=True, output_attentions=True)
    assert torch.equal(model.encode_images(pixels), before)


def test_tower_with_a_missing_layer_raises(tiny_checkpoint, pixels, make_config):
    tower = CLIPVisionTower(str(tiny_checkpoint / "tower"), make_config(mm_vision_select_layer=-5))
    with pytest.raises(CheckpointError, match="mm_vision_select_layer is -5; the tower has 3 layers"):
        tower(pixels)
