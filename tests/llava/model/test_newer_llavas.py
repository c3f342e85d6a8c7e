"""SigLIP towers, LLaVA-NeXT and LLaVA-OneVision: as transformers computes them, in either layout, there and back."""

import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration, LlavaOnevisionImageProcessorPil

from llava.errors import CheckpointError
from llava.mm_utils import process_images
from llava.model import LlavaQwenForCausalLM
from llava.model.builder import load_pretrained_model
from llava.model.checkpoint.weights_io import CheckpointWeights, find_weight_files
from llava.model.convert import convert
from tests.fixtures.hub_llavas import IMAGE, MODELS, write_hub_llava

WORDS = (5, 17, 33)
SIZES = [(16, 16), (64, 64), (30, 20), (90, 20), (10, 90), (61, 47)]  # width, height


@pytest.fixture(scope="module", params=MODELS)
def made(request, tmp_path_factory):
    """A folder that transformers wrote, its model, and its image processor."""
    folder = tmp_path_factory.mktemp("hub") / "model"
    return folder, *write_hub_llava(request.param, folder)


@pytest.fixture(scope="module")
def ours(made, tmp_path_factory):
    """The same checkpoint in LLaVA's layout."""
    target = tmp_path_factory.mktemp("converted") / "llava"
    convert(str(made[0]), target)
    return target


def opened(folder):
    _, model, processor, _ = load_pretrained_model(str(folder), None, "any", device="cpu")
    return model, processor


def noise(size):
    return Image.effect_noise(size, 90).convert("RGB")


def answered(model, processor, images):
    """Logits (1, T, V) for a prompt with some images, and how many positions the images take."""
    sizes = [image.size for image in images]
    ids = torch.tensor([[1, *(token for _ in images for token in (-200, 7)), *WORDS]])
    with torch.no_grad():
        pixels = process_images(images, processor, model.config)
        logits = model(ids, images=pixels, image_sizes=sizes).logits
        return logits, [len(features) for features in model.image_features(pixels, sizes)]


def expected_logits(model, inputs, counts):
    ids = torch.tensor([[1, *(token for count in counts for token in (*[IMAGE] * count, 7)), *WORDS]])
    with torch.no_grad():
        return model(input_ids=ids, **inputs).logits


def prepared(processor, images):
    """What transformers' image processor gives for the images of one prompt."""
    several = isinstance(processor, LlavaOnevisionImageProcessorPil)
    return dict(processor([images] if several else images, return_tensors="pt"))


def test_logits_are_those_of_transformers_in_either_layout(made, ours):
    folder, model, image_processor = made
    for layout in (folder, ours):
        own, processor = opened(layout)
        assert processor.image_mean == image_processor.image_mean
        for size in SIZES:
            image = noise(size)
            found, counts = answered(own, processor, [image])
            inputs = prepared(image_processor, [image])
            torch.testing.assert_close(found, expected_logits(model, inputs, counts), atol=1e-5, rtol=0)
            assert counts == [own.max_image_tokens(size)]


def test_several_images_are_those_of_transformers(made, ours):
    """With "anyres_max_N" none of them is cut into crops."""
    _, model, image_processor = made
    own, processor = opened(ours)
    images = [noise(size) for size in SIZES[:3]]
    found, counts = answered(own, processor, images)
    inputs = prepared(image_processor, images)
    torch.testing.assert_close(found, expected_logits(model, inputs, counts), atol=1e-5, rtol=0)
    assert counts == [own.max_image_tokens(image.size, len(images)) for image in images]


def tensors(folder):
    return CheckpointWeights(find_weight_files(folder)).read()


def test_convert_there_and_back_keeps_every_bit(made, ours, tmp_path):
    _, model, _ = made
    convert(str(ours), tmp_path / "hub")
    again = type(model).from_pretrained(tmp_path / "hub").eval()
    before, after = model.state_dict(), again.state_dict()
    assert set(before) == set(after) and all(torch.equal(before[name], after[name]) for name in before)
    convert(str(tmp_path / "hub"), tmp_path / "llava")
    first, last = tensors(ours), tensors(tmp_path / "llava")
    assert set(first) == set(last) and all(torch.equal(first[name], last[name]) for name in first)
    for name in ("config.json", "vision_tower/config.json"):
        assert json.loads((ours / name).read_text()) == json.loads((tmp_path / "llava" / name).read_text())
    image = noise((61, 47))
    expected, found = (answered(*opened(path), [image])[0] for path in (ours, tmp_path / "hub"))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def onevision(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onevision") / "hub"
    write_hub_llava("onevision-4", folder)
    return folder


def test_converted_onevision_is_laid_out_as_llava_nexts(onevision, tmp_path):
    """Whose tower counts one layer more than it holds, and takes the last that it holds."""
    convert(str(onevision), tmp_path / "llava")
    fields, tower = (
        json.loads((tmp_path / "llava" / name).read_text()) for name in ("config.json", "vision_tower/config.json")
    )
    assert (fields["model_type"], fields["architectures"]) == ("llava_qwen", ["LlavaQwenForCausalLM"])
    assert (fields["mm_vision_select_layer"], fields["mm_vision_select_feature"]) == (-2, "patch")
    assert (fields["image_aspect_ratio"], fields["mm_patch_merge_type"]) == ("anyres_max_4", "spatial_unpad")
    assert fields["image_grid_pinpoints"][1] == [32, 16], "width, height"
    assert (fields["rope_theta"], fields["rope_scaling"]) == (1000000.0, None), "as its release of transformers reads"
    assert tower["num_hidden_layers"] == 4
    prefix = "model.vision_tower.vision_tower.vision_model.encoder.layers."
    held = {name.split(".")[6] for name in tensors(tmp_path / "llava") if name.startswith(prefix)}
    assert held == {"0", "1", "2"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vision_feature_select_strategy": "default"}, "vision_feature_select_strategy 'default'.* expected full"),
        ({"vision_aspect_ratio": "anyres"}, "vision_aspect_ratio 'anyres'.* expected anyres_max_N"),
        ({"vision_aspect_ratio": "pad"}, "vision_aspect_ratio 'pad'.* expected anyres_max_N"),
        ({"vision_feature_layer": [-2, -1]}, r"vision_feature_layer \[-2, -1\].* expected one layer"),
        ({"vision_config": {"model_type": "dinov2"}}, "vision_config.model_type 'dinov2'.* clip.* or siglip"),
    ],
    ids=str,
)
def test_convert_what_llava_cannot_hold_raises(onevision, tmp_path, changes, message):
    """SigLIP has no class token to leave out; transformers' OneVision always has a limit."""
    folder = shutil.copytree(onevision, tmp_path / "hub")
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, **changes}))
    for attempt in (opened, lambda path: convert(str(path), tmp_path / "llava")):
        with pytest.raises(CheckpointError, match=message):
            attempt(folder)


@pytest.mark.parametrize("change", ["missing", "left over"])
def test_convert_a_siglip_tower_that_its_config_does_not_describe_raises(onevision, tmp_path, change):
    folder = shutil.copytree(onevision, tmp_path / "hub")
    path, layer = folder / "model.safetensors", "vision_tower.encoder.layers."
    found = load_file(path)
    if change == "missing":
        found = {name: tensor for name, tensor in found.items() if not name.startswith(f"{layer}1.")}
    else:
        found[f"{layer}7.layer_norm1.bias"] = torch.zeros(24)
    save_file(found, path, {"format": "pt"})
    for attempt in (opened, lambda path: convert(str(path), tmp_path / "llava")):
        with pytest.raises(CheckpointError, match=rf"{change}: .*layers\.[17]\."):
            attempt(folder)


def test_convert_takes_a_siglip_tower_that_is_outside_the_checkpoint(onevision, make_checkpoint, tmp_path):
    """All of it: its last layer and its head, too."""
    source = make_checkpoint(LlavaQwenForCausalLM, siglip=True, num_key_value_heads=2, image_aspect_ratio="pad")
    tower = load_file(source / "tower" / "model.safetensors")
    inside = load_file(source / "model.safetensors")
    shutil.rmtree(source / "vision_tower")
    outside = {name: tensor for name, tensor in inside.items() if "vision_tower" not in name}
    save_file(outside, source / "model.safetensors", {"format": "pt"})
    convert(str(source), tmp_path / "hub")
    model = LlavaForConditionalGeneration.from_pretrained(tmp_path / "hub").eval()
    read = model.model.vision_tower.state_dict()
    assert set(read) == set(tower) and all(torch.equal(read[name], tower[name]) for name in tower)
    assert (model.config.vision_feature_layer, model.config.vision_feature_select_strategy) == (-2, "full")
    own, processor = opened(source)
    image = noise((20, 30))
    found, counts = answered(own, processor, [image])
    inputs = {"pixel_values": process_images([image], processor, own.config)}
    token = model.config.image_token_index
    ids = torch.tensor([[1, *[token] * counts[0], 7, *WORDS]])
    with torch.no_grad():
        expected = model(input_ids=ids, **inputs).logits
    torch.testing.assert_close(found, expected[..., : found.shape[-1]], atol=1e-5, rtol=0)
