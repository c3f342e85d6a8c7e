"""LLaVA's layout to transformers' and back: bit-equal tensors, equal answers; either is opened as it is."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image
from transformers import (
    AutoProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessorPil,
    LlavaNextForConditionalGeneration,
    LlavaProcessor,
)
from transformers import LlavaConfig as HubLlavaConfig

from llava.errors import CheckpointError
from llava.mm_utils import process_images
from llava.model import LlavaLlamaForCausalLM, LlavaMistralForCausalLM, LlavaQwenForCausalLM
from llava.model.builder import load_pretrained_model
from llava.model.checkpoint.weights_io import CheckpointWeights, find_weight_files
from llava.model.convert import convert

ANYRES = {
    "image_aspect_ratio": "anyres",
    "mm_patch_merge_type": "spatial_unpad",
    "image_grid_pinpoints": [[48, 16], [16, 32], [32, 32]],  # width, height: not the same the other way round
}
LAYOUTS = {
    "1.5": (LlavaLlamaForCausalLM, {}),
    "1.5-uncropped": (LlavaLlamaForCausalLM, {"image_aspect_ratio": "square", "mm_vision_select_feature": "cls_patch"}),
    "1.5-mistral": (LlavaMistralForCausalLM, {"num_key_value_heads": 2, "sliding_window": None}),
    "1.5-qwen2": (LlavaQwenForCausalLM, {"tie_word_embeddings": True, "num_key_value_heads": 2}),
    "1.6": (LlavaLlamaForCausalLM, ANYRES),
    "1.6-mistral": (LlavaMistralForCausalLM, {**ANYRES, "num_key_value_heads": 2, "sliding_window": None}),
}
IMAGE_SIZES = [(20, 30), (60, 20), (10, 90)]  # width, height
WORDS = (5, 17, 33)


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(request):
    return request.param


@pytest.fixture(scope="module")
def source(make_checkpoint, layout):
    model_class, changes = LAYOUTS[layout]
    return make_checkpoint(model_class, **changes)


@pytest.fixture(scope="module")
def hub(source, tmp_path_factory):
    target = tmp_path_factory.mktemp("converted") / "hub"
    convert(str(source), target)
    return target


def tensors(folder):
    return CheckpointWeights(find_weight_files(folder)).read()


def opened(folder):
    """Processor and model."""
    _, model, processor, _ = load_pretrained_model(str(folder), None, "any", device="cpu")
    return processor, model


def noise(size):
    return Image.effect_noise(size, 90).convert("RGB")


def transformers_answer(folder, pixels, size, count, image_token):
    """Logits (1, T, V) of transformers' own class for the test's prompt, whose image takes ``count`` positions."""
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    ids = torch.tensor([[1, *[image_token] * count, *WORDS]])
    with torch.no_grad():
        if kind == "llava":
            model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
            return model(input_ids=ids, pixel_values=pixels).logits
        model = LlavaNextForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        return model(input_ids=ids, pixel_values=pixels, image_sizes=torch.tensor([size[::-1]])).logits


def our_answer(model, processor, size, image):
    pixels = process_images([image], processor, model.config)
    with torch.no_grad():
        return pixels, model(torch.tensor([[1, -200, *WORDS]]), images=pixels, image_sizes=[size]).logits


def test_convert_there_and_back_keeps_every_bit(source, hub, tmp_path):
    convert(str(hub), tmp_path / "back")
    before, after = tensors(source), tensors(tmp_path / "back")
    assert set(before) == set(after)
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)
    assert json.loads((source / "config.json").read_text()) == json.loads(
        (tmp_path / "back" / "config.json").read_text()
    )
    shutil.move(tmp_path / "back", tmp_path / "moved")
    image = noise((60, 20))
    for ours, expected in zip(
        our_answer(*opened(tmp_path / "moved")[::-1], (60, 20), image),
        our_answer(*opened(source)[::-1], (60, 20), image),
        strict=True,
    ):
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", IMAGE_SIZES, ids=str)
def test_converted_model_gives_the_same_logits(source, hub, size):
    """Of the checkpoint, and of the converted folder opened as it is."""
    processor, model = opened(source)
    image = noise(size)
    pixels, expected = our_answer(model, processor, size, image)
    count = expected.shape[1] - 1 - len(WORDS)
    token = json.loads((hub / "config.json").read_text())["image_token_index"]
    theirs = transformers_answer(hub, pixels, size, count, token)
    vocabulary = model.config.vocab_size
    torch.testing.assert_close(theirs[..., :vocabulary], expected, atol=1e-5, rtol=0)
    assert int(theirs.argmax(-1).max()) < vocabulary, "the image tag's new row is never the answer"
    direct_processor, direct = opened(hub)
    assert type(direct) is type(model)
    direct_pixels, found = our_answer(direct, direct_processor, size, image)
    assert torch.equal(direct_pixels, pixels)
    torch.testing.assert_close(found, theirs, atol=1e-5, rtol=0)


def test_converted_processor_prepares_the_same_inputs(source, hub, layout):
    size = (60, 20)
    image = noise(size)
    processor, model = opened(source)
    expected, logits = our_answer(model, processor, size, image)
    inputs = AutoProcessor.from_pretrained(hub)(text="<image>w5 w17 w33", images=image, return_tensors="pt")
    token = json.loads((hub / "config.json").read_text())["image_token_index"]
    count = logits.shape[1] - 1 - len(WORDS)
    assert inputs["input_ids"].tolist() == [[1, *[token] * count, *WORDS]]
    assert inputs["pixel_values"].shape == expected.shape
    if layout.startswith("1.5"):  # crops are resized in another order there
        torch.testing.assert_close(inputs["pixel_values"], expected, atol=0.03, rtol=0)


def test_hub_layout_opened_and_saved_is_llavas_layout(hub, tmp_path):
    _, model = opened(hub)
    model.save_pretrained(tmp_path)
    assert all(name.startswith(("model.", "lm_head.")) for name in tensors(tmp_path))
    again = type(model).from_pretrained(tmp_path).eval()
    again.get_vision_tower().load_model()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.fixture(scope="module")
def made_by_transformers(tiny_tokenizer, tmp_path_factory):
    """A checkpoint that was never LLaVA's, with rows for ``<image>`` and more, as llava-hf's have."""
    folder = tmp_path_factory.mktemp("hub") / "model"
    torch.manual_seed(5)
    text = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        initializer_range=0.2,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        image_size=16, patch_size=8, hidden_size=24, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2
    )
    config = HubLlavaConfig(text_config=text, vision_config=vision, image_token_index=60, image_seq_length=4)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    size = {"height": 16, "width": 16}
    images = LlavaImageProcessorPil(size={"shortest_edge": 16}, crop_size=size, do_pad=True)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    LlavaProcessor(
        image_processor=images, tokenizer=tokenizer, patch_size=8, vision_feature_select_strategy="default"
    ).save_pretrained(folder)
    return folder


def test_convert_a_checkpoint_saved_by_transformers(made_by_transformers, tmp_path):
    processor, model = opened(made_by_transformers)
    assert model.config.image_aspect_ratio == "pad" and model.config.vocab_size == 64
    pixels, found = our_answer(model, processor, (20, 30), noise((20, 30)))
    torch.testing.assert_close(
        found, transformers_answer(made_by_transformers, pixels, (20, 30), 4, 60), atol=1e-5, rtol=0
    )
    convert(str(made_by_transformers), tmp_path / "llava")
    convert(str(tmp_path / "llava"), tmp_path / "back")
    _, converted = opened(tmp_path / "llava")
    assert all(torch.equal(value, converted.state_dict()[name]) for name, value in model.state_dict().items())
    first = LlavaForConditionalGeneration.from_pretrained(made_by_transformers).state_dict()
    last = LlavaForConditionalGeneration.from_pretrained(tmp_path / "back").state_dict()
    assert set(first) == set(last) and all(torch.equal(first[name], last[name]) for name in first)


def test_convert_program_writes_or_exits_with_2(tiny_checkpoint, tmp_path):
    command = [sys.executable, "-m", "llava.model.convert", str(tiny_checkpoint), str(tmp_path / "hub")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "hub" / "model.safetensors").is_file() and not (tmp_path / "hub" / "unfinished").exists()
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 2 and "exists" in again.stderr and "Traceback" not in again.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mm_projector_type": "linear"}, "mm_projector_type is 'linear'"),
        ({"image_aspect_ratio": "anyres", "image_grid_pinpoints": [[16, 32]]}, "mm_patch_merge_type is 'flat'"),
    ],
    ids=str,
)
def test_convert_what_transformers_cannot_hold_raises(make_checkpoint, tmp_path, changes, message):
    folder = make_checkpoint(**changes)
    with pytest.raises(CheckpointError, match=message):
        convert(str(folder), tmp_path / "hub")
    assert not (tmp_path / "hub").exists()


def test_convert_a_scheduler_raises_with_the_plugins_reason(adaptive_checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match="no scheduler"):
        convert(str(adaptive_checkpoint), tmp_path / "hub")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model_type", "video_llava"),
        ("vision_feature_layer", [-2, -1]),
        ("projector_hidden_act", "relu"),
        ("multimodal_projector_bias", False),
    ],
)
def test_convert_what_llava_cannot_hold_raises(made_by_transformers, tmp_path, name, value):
    folder = shutil.copytree(made_by_transformers, tmp_path / "hub")
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, name: value}))
    with pytest.raises(CheckpointError, match=name):
        load_pretrained_model(str(folder), None, "any", device="cpu")
