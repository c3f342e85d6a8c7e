"""SigLIP towers, LLaVA-NeXT and LLaVA-OneVision: as transformers computes them, in either layout, there and back."""

import json

import pytest
import torch
from PIL import Image
from transformers import LlavaOnevisionImageProcessorPil

from llava.mm_utils import process_images
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
