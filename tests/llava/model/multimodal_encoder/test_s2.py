"""The vision tower that reads an image at several scales, against a slow version of the same."""

from types import SimpleNamespace

import pytest
import torch
from transformers import CLIPVisionModel, SiglipVisionConfig

from llava.errors import CheckpointError
from llava.mm_utils import process_images
from llava.model import LlavaLlamaForCausalLM
from llava.model.builder import load_pretrained_model
from llava.model.convert import convert
from llava.model.multimodal_encoder.builder import build_vision_tower
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower, CLIPVisionTowerS2
from llava.model.multimodal_encoder.multiscale import scales_of

SCALES = "16,32,48"


@pytest.fixture
def settings(tiny_checkpoint):
    def make(**changes):
        fields = {"mm_vision_tower": str(tiny_checkpoint / "tower"), "mm_vision_select_layer": -2, "s2": True}
        return SimpleNamespace(**{**fields, "s2_scales": SCALES, **changes})

    return make


@pytest.fixture
def large_pixels():
    return torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(3))


def slow_features(folder, image, scales, side=16):
    """Features (P, scales * C) of one image (3, L, L): crop by crop, patch by patch."""
    model = CLIPVisionModel.from_pretrained(folder).eval()
    columns = []
    for scale in scales:
        enlarged = torch.nn.functional.interpolate(image[None], size=scale, mode="bicubic")[0]
        per_side, patches = scale // side, {}
        for row in range(per_side):
            for column in range(per_side):
                crop = enlarged[:, row * side : (row + 1) * side, column * side : (column + 1) * side]
                states = model(crop[None], output_hidden_states=True).hidden_states[-2][0, 1:]
                for number, patch in enumerate(states):
                    patches[2 * row + number // 2, 2 * column + number % 2] = patch
        merged = []
        for row in range(2):
            for column in range(2):
                rows = range(row * per_side, (row + 1) * per_side)
                own = [patches[y, x] for y in rows for x in range(column * per_side, (column + 1) * per_side)]
                merged.append(torch.stack(own).mean(0))
        columns.append(torch.stack(merged))
    return torch.cat(columns, dim=1)


@pytest.mark.parametrize("scales", ["16,32,48", "16", "16,64", [32, 16]])
@torch.no_grad()
def test_features_are_those_of_every_scale(tiny_checkpoint, settings, large_pixels, scales):
    tower = build_vision_tower(settings(s2_scales=scales))
    features = tower(large_pixels)
    sizes = sorted(int(word) for word in (scales.split(",") if isinstance(scales, str) else scales))
    assert features.shape == (2, tower.num_patches, tower.hidden_size) == (2, 4, 24 * len(sizes))
    for image, found in zip(large_pixels, features, strict=True):
        torch.testing.assert_close(found, slow_features(tiny_checkpoint / "tower", image, sizes), atol=1e-5, rtol=1e-5)
    one_by_one = tower(list(large_pixels))
    torch.testing.assert_close(torch.cat(one_by_one), features, atol=1e-5, rtol=1e-5)


def test_scale_of_one_crop_gives_the_plain_towers_features(tiny_checkpoint, settings):
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    plain = build_vision_tower(settings(s2=False))
    assert type(plain) is CLIPVisionTower and plain.crops_per_image == 1
    torch.testing.assert_close(build_vision_tower(settings(s2_scales="16"))(pixels), plain(pixels))


def test_processor_makes_pixels_of_the_largest_scale(settings, image_file):
    from PIL import Image

    tower = build_vision_tower(settings(), delay_load=True)
    assert isinstance(tower, CLIPVisionTowerS2) and tower.crops_per_image == 1 + 4 + 9
    pixels = tower.image_processor(Image.open(image_file), return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 48, 48)


@pytest.mark.parametrize("setting", ["", "16,24", "0,16", "16,16", "16;32", "sixteen", [], -16, [16, None]])
def test_scales_that_cannot_be_cut_into_crops_raise(setting):
    with pytest.raises(CheckpointError, match=r"s2_scales is .*each a multiple of the smallest"):
        scales_of(setting)


def test_default_scales_are_upstreams():
    assert scales_of(None) == [336, 672, 1008]


def test_scales_of_another_tower_raise(settings):
    with pytest.raises(CheckpointError, match=r"s2_scales begins with 32, .*images of 16 pixels"):
        build_vision_tower(settings(s2_scales="32,64"))


def test_class_token_with_scales_raises(settings):
    with pytest.raises(CheckpointError, match="'cls_patch'; with s2 it must be 'patch'"):
        build_vision_tower(settings(mm_vision_select_feature="cls_patch"), delay_load=True)


@pytest.mark.parametrize("merge", ["flat", "spatial", "spatial_unpad"])
@pytest.mark.parametrize("points", [[[32, 64], [64, 32], [64, 64]], "(1x2),(2x1),(2x2)"])
def test_crops_are_of_the_largest_scale(make_checkpoint, points, merge):
    """An image in crops: each is a square of the largest scale, as the processor makes it."""
    from PIL import Image

    changes = {"image_aspect_ratio": "anyres", "image_grid_pinpoints": points, "mm_patch_merge_type": merge}
    folder = make_checkpoint(s2=True, s2_scales="16,32", mm_hidden_size=48, **changes)
    _, model, processor, _ = load_pretrained_model(str(folder), None, "tiny", device="cpu")
    for size, crops in (((60, 30), 2), ((30, 60), 2), ((61, 60), 4)):
        pixels = process_images([Image.effect_noise(size, 90)], processor, model.config)
        assert pixels.shape == (1, 1 + crops, 3, 32, 32)
        (features,) = model.image_features(pixels, [size])
        assert len(features) == model.max_image_tokens(size)
        overview = model.encode_images(pixels[0, :1])[0]
        torch.testing.assert_close(features[: len(overview)], overview, atol=1e-5, rtol=1e-5)


def test_checkpoint_with_scales_answers_and_is_saved_with_them(make_checkpoint, tmp_path, image_file):
    from PIL import Image

    folder = make_checkpoint(s2=True, s2_scales="16,32", mm_hidden_size=48)
    _, model, processor, _ = load_pretrained_model(str(folder), None, "tiny", device="cpu")
    pixels = processor(Image.open(image_file), return_tensors="pt")["pixel_values"]
    assert pixels.shape[-1] == 32
    ids = torch.tensor([[1, 5, -200, 6]])
    logits = model(ids, images=pixels).logits
    assert logits.shape[1] == 3 + 4 == 3 + model.max_image_tokens((30, 20))
    model.save_pretrained(tmp_path / "again")
    again = LlavaLlamaForCausalLM.from_pretrained(tmp_path / "again").eval()
    again.get_vision_tower().load_model()
    assert isinstance(again.get_vision_tower(), CLIPVisionTowerS2)
    torch.testing.assert_close(again(ids, images=pixels).logits, logits)


def test_scales_of_a_tower_that_is_not_clip_raise(settings, tmp_path):
    SiglipVisionConfig(
        hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    ).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"s2 needs a CLIP vision tower; .* is a SigLipVisionTower"):
        build_vision_tower(settings(mm_vision_tower=str(tmp_path)), delay_load=True)


def test_layout_of_transformers_raises(make_checkpoint, tmp_path):
    folder = make_checkpoint(s2=True, s2_scales="16,32", mm_hidden_size=48)
    with pytest.raises(CheckpointError, match=r"has s2: its vision tower reads images at several scales"):
        convert(str(folder), tmp_path / "hub")
