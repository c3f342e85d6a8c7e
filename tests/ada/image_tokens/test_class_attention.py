"""The class token's attention: against what transformers' own tower returns, and crop by crop in 1.6 layouts."""

import pytest
import torch
from transformers import CLIPVisionModel

from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import OptionError
from llava.model.multimodal.anyres_merge import merge_crops

IDS = torch.tensor([[1, IMAGE_TOKEN_INDEX, 5]])
GREEDY = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0}
ANYRES = {"image_aspect_ratio": "anyres", "image_grid_pinpoints": [[24, 48], [48, 24], [48, 48]]}


def attention_of(model, pixels, layer):
    """The class token's weights on the patches (N, 36), the mean over heads, as transformers computes them."""
    folder = model.get_vision_tower().location
    theirs = CLIPVisionModel.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        weights = theirs(pixels, output_attentions=True).attentions[layer]
    return weights.mean(dim=1)[:, 0, 1:]


@pytest.mark.parametrize(("selected", "read"), [(-2, 2), (-3, 1), (-1, 2), (3, 2)])
@torch.no_grad()
def test_class_attention_is_that_of_the_layer_after_the_selected_one_or_of_the_last(
    make_patched, pixels_of, selected, read
):
    model, pixels = make_patched(mm_vision_select_layer=selected), pixels_of(2)
    ids = torch.tensor([[1, IMAGE_TOKEN_INDEX, 5, IMAGE_TOKEN_INDEX]])
    batch = model.embed(ids, images=pixels, image_tokens=9, token_selector="cls")
    expected = attention_of(model, pixels, read)
    for image, own in zip(batch.images[0], expected, strict=True):
        torch.testing.assert_close(image.class_attention, own)
    torch.testing.assert_close(batch.embeds, model.embed(ids, images=pixels).embeds)


def counted(number, run, calls):
    """``run``, which also notes its number in ``calls``."""

    def forward(*given, **named):
        calls.append(number)
        return run(*given, **named)

    return forward


@torch.no_grad()
def test_tower_runs_once_for_features_and_attention(patched, pixels_of, monkeypatch):
    layers = patched.get_vision_tower().vision_tower.vision_model.encoder.layers
    calls = []
    for number in range(len(layers)):
        monkeypatch.setattr(layers[number], "forward", counted(number, layers[number].forward, calls))
    patched.generate(IDS, images=pixels_of(1), image_tokens=9, token_selector="cls", **GREEDY)
    assert calls == [0, 1], "up to the selected layer, each once"


@pytest.mark.parametrize("merge_type", ["flat", "spatial", "spatial_unpad"])
@torch.no_grad()
def test_cls_of_crops_keeps_the_tokens_of_the_greatest_attention_in_their_own_crop(make_patched, pixels_of, merge_type):
    model = make_patched(mm_patch_merge_type=merge_type, **ANYRES)
    crops, size = [pixels_of(3, 1), pixels_of(5, 2)], [(90, 30), (70, 60)]
    ids = torch.tensor([[1, IMAGE_TOKEN_INDEX, 5, IMAGE_TOKEN_INDEX, 7]])
    full = model.embed(ids, images=crops, image_sizes=size)
    batch = model.embed(ids, images=crops, image_sizes=size, image_tokens="40%", token_selector="cls")
    reading = model.read_tokens(batch, "40%", "cls", [None])
    spans = full.image_spans[0]
    for own, span, new, image_size, grid in zip(
        crops, spans, reading.batch.image_spans[0], size, [(2, 1), (2, 2)], strict=True
    ):
        attention = attention_of(model, own, 2)[..., None]
        merged = merge_crops(attention, merge_type, grid, image_size, torch.tensor([-1.0]))[:, 0]
        keep = int(0.4 * len(merged))
        kept = sorted(sorted(range(len(merged)), key=lambda i: -merged[i])[:keep])
        expected = full.embeds[0, span.start : span.end][kept]
        torch.testing.assert_close(reading.batch.embeds[0, new.start : new.end], expected)
        assert reading.batch.position_ids[0, new.start : new.end].tolist() == [span.start + i for i in kept]


@pytest.mark.parametrize("selector", ["cls", "prumerge", "prumerge+"])
def test_tower_without_a_class_token_is_refused_by_name(make_patched, pixels_of, selector):
    model = make_patched(siglip=True)
    with pytest.raises(OptionError, match=f"'{selector.replace('+', '[+]')}'.*SigLipVisionTower.*Choose salient"):
        model.generate(IDS, images=pixels_of(1), image_tokens=9, token_selector=selector, **GREEDY)


@pytest.mark.parametrize("selector", ["cls", "prumerge", "shrink"])
def test_several_scales_are_refused_by_name(make_llava, selector):
    model = make_llava("H", s2=True, s2_scales="28,56", mm_hidden_size=48)
    with pytest.raises(OptionError, match=f"'{selector}'.*S2"):
        model.generate(IDS, images=torch.randn(1, 3, 56, 56), image_tokens=2, token_selector=selector, **GREEDY)


def test_text_alone_ignores_the_selector(make_patched):
    model = make_patched(siglip=True)
    ids = torch.tensor([[1, 5, 6]])
    expected = model.generate(ids, **GREEDY)
    assert torch.equal(model.generate(ids, image_tokens=4, token_selector="cls", **GREEDY), expected)
