"""SigLIP towers, LLaVA-NeXT and LLaVA-OneVision: as transformers computes them, in either layout, there and back."""

import json

import pytest
import torch
from PIL import Image
from transformers import (
    CLIPVisionConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessorPil,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessorPil,
    LlavaProcessor,
    MistralConfig,
    Qwen2Config,
    SiglipVisionConfig,
)
from transformers import LlavaConfig as HubLlavaConfig
from transformers import LlavaNextConfig as HubLlavaNextConfig
from transformers import LlavaOnevisionConfig as HubLlavaOnevisionConfig

from llava.mm_utils import process_images
from llava.model.builder import load_pretrained_model
from llava.model.checkpoint.weights_io import CheckpointWeights, find_weight_files
from llava.model.convert import convert

SIDE, IMAGE, VIDEO, WORDS = 16, 60, 61, (5, 17, 33)
POINTS = [[SIDE * down, SIDE * across] for down in range(1, 5) for across in range(1, 5)]  # height, width
SIZES = [(16, 16), (64, 64), (30, 20), (90, 20), (10, 90), (61, 47)]  # width, height
TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "max_position_embeddings": 512,
}
VISION = {
    "image_size": SIDE,
    "patch_size": 4,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}
QWEN2 = Qwen2Config(**TEXT, tie_word_embeddings=True, rope_theta=1000000.0)
MISTRAL = MistralConfig(**TEXT, sliding_window=None)
CLIP = CLIPVisionConfig(**VISION)
SIGLIP = SiglipVisionConfig(**VISION, vision_use_head=False)  # all of its layers are used, as llava-hf's
WITH_HEAD = SiglipVisionConfig(**VISION)
LAST = {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"}
BEFORE_LAST = {"vision_feature_layer": -2, "vision_feature_select_strategy": "full"}
# The config's class, decoder, tower, and further settings.
MODELS = {
    "onevision-9": (HubLlavaOnevisionConfig, QWEN2, SIGLIP, {**LAST, "vision_aspect_ratio": "anyres_max_9"}),
    "onevision-4": (HubLlavaOnevisionConfig, QWEN2, SIGLIP, {**LAST, "vision_aspect_ratio": "anyres_max_4"}),
    "onevision-1": (HubLlavaOnevisionConfig, QWEN2, WITH_HEAD, {**BEFORE_LAST, "vision_aspect_ratio": "anyres_max_1"}),
    "onevision-clip": (HubLlavaOnevisionConfig, QWEN2, CLIP, {"vision_feature_select_strategy": "default"}),
    "next-qwen2": (HubLlavaNextConfig, QWEN2, CLIP, {}),
    "next-mistral": (HubLlavaNextConfig, MISTRAL, CLIP, {}),
    "next-siglip": (HubLlavaNextConfig, QWEN2, SIGLIP, LAST),
    "1.5-siglip": (HubLlavaConfig, QWEN2, WITH_HEAD, {**BEFORE_LAST, "vision_feature_layer": 2}),
}
CLASSES = {
    HubLlavaOnevisionConfig: LlavaOnevisionForConditionalGeneration,
    HubLlavaNextConfig: LlavaNextForConditionalGeneration,
    HubLlavaConfig: LlavaForConditionalGeneration,
}


def processor_settings(vision):
    if vision is CLIP:
        size = {"height": SIDE, "width": SIDE}
        return {"size": {"shortest_edge": SIDE}, "crop_size": size, "do_center_crop": True}
    half = [0.5, 0.5, 0.5]
    size = {"height": SIDE, "width": SIDE}
    return {"size": size, "crop_size": size, "do_center_crop": False, "image_mean": half, "image_std": half}


def write_processor(kind, vision, tokenizer, folder):
    """transformers' image processor with the model's settings, in its files."""
    settings = processor_settings(vision)
    named = {"tokenizer": tokenizer, "patch_size": 4, "vision_feature_select_strategy": "full"}
    if kind is HubLlavaOnevisionConfig:  # the processor itself needs torchvision
        images = LlavaOnevisionImageProcessorPil(**settings, image_grid_pinpoints=POINTS)
        images.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    elif kind is HubLlavaNextConfig:
        images = LlavaNextImageProcessorPil(**settings, image_grid_pinpoints=POINTS)
        LlavaNextProcessor(image_processor=images, **named).save_pretrained(folder)
    else:
        images = LlavaImageProcessorPil(**settings, do_pad=True)
        LlavaProcessor(image_processor=images, **named).save_pretrained(folder)
    return images


@pytest.fixture(scope="module", params=MODELS)
def made(request, tiny_tokenizer, tmp_path_factory):
    """A folder that transformers wrote, its model, and its image processor."""
    kind, text, vision, settings = MODELS[request.param]
    folder = tmp_path_factory.mktemp("hub") / "model"
    grid = {} if kind is HubLlavaConfig else {"image_grid_pinpoints": POINTS}
    video = {"video_token_index": VIDEO} if kind is HubLlavaOnevisionConfig else {}
    config = kind(text_config=text, vision_config=vision, image_token_index=IMAGE, **grid, **video, **settings)
    torch.manual_seed(5)
    model = CLASSES[kind](config).eval()
    for name, parameter in model.named_parameters():
        if "vision_tower" in name:  # far from the small values that training starts with
            torch.nn.init.normal_(parameter, std=0.15)
    model.save_pretrained(folder)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<image>", "<video>"], special_tokens=True)
    return folder, model, write_processor(kind, vision, tokenizer, folder)


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
