"""Checkpoints as the LLaVA-NeXT repository writes them, and what of them is not supported."""

import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, Qwen2Config, SiglipVisionConfig

from llava.errors import CheckpointError, OptionError
from llava.mm_utils import process_images
from llava.model import LlavaQwenForCausalLM
from llava.model.builder import load_pretrained_model
from llava.model.consolidate import consolidate_ckpt
from llava.model.convert import convert
from llava.model.loaded_model import open_model
from tests.fixtures.tiny_models import siglip_config

SIDE = 16
SIZES = [(16, 16), (61, 47), (90, 20), (10, 90), (300, 290)]  # width, height
PUBLISHED = {  # of lmms-lab's LLaVA-OneVision: fields that no other checkpoint has
    "model_type": "llava",
    "architectures": ["LlavaQwenForCausalLM"],
    "image_aspect_ratio": "anyres_max_4",
    "image_grid_pinpoints": "(1x1),...,(4x3)",  # across and down
    "mm_patch_merge_type": "spatial_unpad",
    "mm_newline_position": "one_token",
    "mm_resampler_type": None,
    "mm_spatial_pool_mode": "bilinear",
    "mm_tunable_parts": "mm_vision_tower,mm_mlp_adapter,mm_language_model",
    "image_crop_resolution": None,
    "image_split_resolution": None,
    "unfreeze_mm_vision_tower": True,
    "use_pos_skipping": False,
    "add_faster_video": False,
}


@pytest.fixture(scope="module")
def published(make_checkpoint):
    """A OneVision on Qwen2 whose output layer is tied and whose vision tower is among its weights."""
    folder = make_checkpoint(
        LlavaQwenForCausalLM,
        siglip=True,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        rope_theta=1000000.0,
        mm_patch_merge_type="spatial_unpad",
        max_position_embeddings=1024,
    )
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **PUBLISHED}))
    return folder


@pytest.fixture
def spoilt(published, tmp_path):
    """``spoilt(**changes)``: a copy whose config.json has other values."""

    def make(**changes):
        folder = shutil.copytree(published, tmp_path / "spoilt")
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        return folder

    return make


def by_hand(folder):
    """transformers' model with the checkpoint's tensors, named one by one."""
    tensors = load_file(folder / "model.safetensors")
    text = json.loads((folder / "config.json").read_text())
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    decoder = Qwen2Config(
        **{name: text[name] for name in sizes}, num_key_value_heads=2, rope_theta=1000000.0, tie_word_embeddings=True
    )
    tower = siglip_config().to_dict()
    points = [[SIDE * down, SIDE * across] for across in range(1, 5) for down in range(1, 4)]  # height, width
    config = LlavaOnevisionConfig(
        text_config=decoder,
        vision_config=SiglipVisionConfig(**{**tower, "num_hidden_layers": 2, "vision_use_head": False}),
        image_token_index=59,
        video_token_index=58,
        image_grid_pinpoints=points,
        vision_aspect_ratio="anyres_max_4",
    )
    model = LlavaOnevisionForConditionalGeneration(config).eval()
    own = {}
    for name, tensor in tensors.items():
        if name.startswith("model.vision_tower.vision_tower.vision_model."):
            name = name.replace("model.vision_tower.vision_tower.vision_model.", "model.vision_tower.")
        elif name.startswith("model.mm_projector."):
            layer = {"0": "linear_1", "2": "linear_2"}[name.split(".")[2]]
            name = f"model.multi_modal_projector.{layer}.{name.split('.')[3]}"
        elif name.startswith("model.") and name != "model.image_newline":
            name = name.replace("model.", "model.language_model.", 1)
        own[name] = tensor
    own["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    model.load_state_dict(own)
    return model


def opened(folder):
    _, model, processor, _ = load_pretrained_model(str(folder), None, "any", device="cpu")
    return model, processor


def noise(size):
    return Image.effect_noise(size, 90).convert("RGB")


def test_published_layout_answers_as_transformers(published):
    model, processor = opened(published)
    assert type(model) is LlavaQwenForCausalLM
    theirs = by_hand(published)
    for size in SIZES:
        image = noise(size)
        pixels = process_images([image], processor, model.config)
        ids = [1, *[59] * model.max_image_tokens(size), 7, 5]
        with torch.no_grad():
            found = model(torch.tensor([[1, -200, 7, 5]]), images=pixels, image_sizes=[size]).logits
            sizes = torch.tensor([size[::-1]])
            expected = theirs(input_ids=torch.tensor([ids]), pixel_values=pixels, image_sizes=sizes).logits
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_published_layout_is_converted_there_and_back(published, tmp_path):
    convert(str(published), tmp_path / "hub")
    convert(str(tmp_path / "hub"), tmp_path / "back")
    before, after = (load_file(path / "model.safetensors") for path in (published, tmp_path / "back"))
    assert set(before) == set(after) and all(torch.equal(before[name], after[name]) for name in before)
    for name in ("config.json", "vision_tower/preprocessor_config.json", "tokenizer.json"):
        assert json.loads((published / name).read_text()) == json.loads((tmp_path / "back" / name).read_text())
    image = noise((61, 47))
    answers = []
    for folder in (published, tmp_path / "hub", tmp_path / "back"):
        model, processor = opened(folder)
        pixels = process_images([image], processor, model.config)
        with torch.no_grad():
            logits = model(torch.tensor([[1, -200, 7, 5]]), images=pixels, image_sizes=[image.size]).logits
        answers.append(logits[..., :58])  # transformers' class has tokens for image and video
    for found in answers[1:]:
        torch.testing.assert_close(found, answers[0], atol=1e-6, rtol=0)


def test_published_layout_is_consolidated_under_its_familys_name(published, tmp_path):
    consolidate_ckpt(str(published), str(tmp_path / "new"))
    assert json.loads((tmp_path / "new" / "config.json").read_text())["model_type"] == "llava_qwen"
    found, expected = (opened(folder)[0].state_dict() for folder in (tmp_path / "new", published))
    assert set(found) == set(expected) and all(torch.equal(found[name], expected[name]) for name in found)


def test_published_layout_is_prompted_with_qwens_template(published):
    loaded = open_model({"model_path": str(published), "device": "cpu"})
    assert loaded.template.roles[1] == "<|im_start|>assistant" and loaded.conv_mode == "qwen_1_5"
    chosen = open_model({"model_path": str(published), "device": "cpu", "conv_mode": "v1"})
    assert chosen.template.roles[1] == "ASSISTANT"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mm_resampler_type": "spatial_pool"}, "mm_resampler_type is 'spatial_pool'"),
        ({"mm_projector_type": "pooler"}, "mm_projector_type is 'pooler'"),
        ({"mm_vision_select_layer": -9}, "mm_vision_select_layer is -9; the tower has 3 layers"),
    ],
    ids=str,
)
def test_published_layout_with_an_unsupported_part_raises(spoilt, changes, message):
    with pytest.raises(CheckpointError, match=message):
        opened(spoilt(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_aspect_ratio": "highres"}, "image_aspect_ratio is 'highres'"),
        ({"image_aspect_ratio": "anyres_max_x"}, "image_aspect_ratio is 'anyres_max_x'"),
        ({"image_grid_pinpoints": "(1x1)...(4x4)"}, r"image_grid_pinpoints is '\(1x1\)\.\.\.\(4x4\)'"),
        ({"mm_patch_merge_type": "spatial_unpad_maxpool2x2"}, "mm_patch_merge_type is 'spatial_unpad_maxpool2x2'"),
    ],
    ids=str,
)
def test_image_settings_that_are_not_supported_raise_at_the_first_image(spoilt, changes, message):
    folder = spoilt(**changes)
    with pytest.raises(CheckpointError, match=message):
        model, processor = opened(folder)
        pixels = process_images([noise((20, 30))], processor, model.config)
        model(torch.tensor([[1, -200, 7]]), images=pixels, image_sizes=[(20, 30)])
    with pytest.raises(CheckpointError, match=message):
        convert(str(folder), folder.parent / "hub")


def test_videos_are_refused_and_images_may_be_named(published):
    model, processor = opened(published)
    given = {"images": process_images([noise((20, 30))], processor, model.config), "image_sizes": [(20, 30)]}
    ids = torch.tensor([[1, -200, 7]])
    named = model.generate(ids, **given, modalities=["image"], max_new_tokens=2, do_sample=False)
    assert torch.equal(named, model.generate(ids, **given, max_new_tokens=2, do_sample=False))
    with pytest.raises(OptionError, match=r"modalities has 'video'.*Videos are not supported"):
        model.generate(ids, **given, modalities=["video"])
