"""Merged image tokens: against loops, in the model, in batches, and what is refused."""

import pytest
import torch
from fixtures.flop_counting import counted
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

from ada.config import AdaLlavaConfig
from ada.frontier.share import PrefillShare
from ada.image_tokens.prumerge import NEIGHBOURS, Patches, chosen_patches, merge, outlier_share
from ada.model.modeling import AdaLlavaLlamaForCausalLM
from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import OptionError

SIDE, PATCHES = 48, 36


def merged_by_loops(patches, chosen):
    """The same by loops over single patches."""
    count = len(patches.features)
    rest = [index for index in range(count) if index not in chosen]
    rows = []
    for one in chosen:
        others = [index for index in [*chosen, *rest] if index != one]
        likeness = [float(torch.cosine_similarity(patches.keys[one], patches.keys[i], dim=0)) for i in others]
        nearest = sorted(range(len(others)), key=lambda i: -likeness[i])[:NEIGHBOURS]
        taken = sum(patches.features[others[i]] * patches.attention[others[i]] for i in nearest)
        rows.append(patches.features[one] + taken)
    rows.append(sum((patches.features[i] * patches.attention[i] for i in rest), torch.zeros_like(patches.features[0])))
    return torch.stack(rows)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 60), st.data())
def test_merge_equals_loops(count, data):
    generator = torch.Generator().manual_seed(count)
    features, keys = (torch.randn(count, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    patches = Patches(features, keys, torch.rand(count, generator=generator, dtype=torch.float64))
    chosen = data.draw(st.lists(st.integers(0, count - 1), unique=True, max_size=count))
    found = merge(patches, torch.tensor(chosen, dtype=torch.long))
    torch.testing.assert_close(found, merged_by_loops(patches, chosen))


def test_outlier_share_counts_what_is_far_above_the_quartiles():
    values = torch.tensor([1.0] * 6 + [2.0] * 6 + [9.0, 3.4])
    assert outlier_share(values) == 1 / 14  # quartiles 1 and 2: only 9 is above 3.5
    assert outlier_share(torch.ones(8)) == 0


def test_plus_adds_even_patches_that_are_not_chosen_yet():
    attention = torch.full((100,), 0.001)
    attention[[10, 11]] = torch.tensor([0.5, 0.4])
    chosen = chosen_patches(attention, plus=True).tolist()
    assert chosen[:2] == [10, 11] and chosen[2:] == [i for i in range(0, 99, 50 // 3) if i not in (10, 11)]


@pytest.fixture(scope="module")
def make_merged(tmp_path_factory):
    """``make_merged("prumerge")``: an adaptive LLaVA whose tower has 36 patches and three layers."""
    folder = tmp_path_factory.mktemp("tower")
    torch.manual_seed(3)
    sizes = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = CLIPVisionConfig(image_size=SIDE, patch_size=SIDE // 6, projection_dim=24, initializer_range=0.4, **sizes)
    CLIPVisionModel(config).save_pretrained(folder)
    crop = {"height": SIDE, "width": SIDE}
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=crop).save_pretrained(folder)

    def make(token_selecting, make_llava, **changes):
        changes = {"mm_vision_tower": str(folder), **changes}
        return make_llava("H", token_selecting=token_selecting, **changes)

    return make


def prompt_ids(words=(5, 6, 7)):
    return torch.tensor([[1, IMAGE_TOKEN_INDEX, *words]])


def images_of(count, seed=0):
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["prumerge", "prumerge+"])
def test_model_reads_merged_tokens_in_place_of_patches(make_merged, make_llava, kind):
    model, pixels = make_merged(kind, make_llava), images_of(1)
    (features,) = model.image_features(pixels)
    assert len(features) < PATCHES + 1
    batch = model.embed(prompt_ids(), images=pixels)
    assert batch.width == 4 + len(features)
    torch.testing.assert_close(batch.embeds[0, 1 : 1 + len(features)], features)
    output = model.generate(
        prompt_ids(), images=pixels, latency_budget=0.6, max_new_tokens=3, return_dict_in_generate=True, pad_token_id=0
    )
    assert output.report.granted <= 0.6
    kept = model.generate(prompt_ids(), images=pixels, max_new_tokens=3, pad_token_id=0)
    model.config.token_selecting = "none"
    all_tokens = model.embed(prompt_ids(), images=pixels)
    assert all_tokens.width == 4 + PATCHES and kept.shape[1] == 3


@pytest.mark.parametrize("kind", ["prumerge", "prumerge+"])
def test_report_states_merged_tokens_both_shares_and_the_operations_counted(make_merged, make_llava, kind):
    model, pixels = make_merged(kind, make_llava), images_of(2)
    ids = torch.tensor([[1, IMAGE_TOKEN_INDEX, 5, IMAGE_TOKEN_INDEX, 6]])
    lengths = [len(features) for features in model.image_features(pixels)]
    settings = {"latency_budget": 0.6, "max_new_tokens": 1, "return_dict_in_generate": True}
    count, output = counted(lambda: model.generate(ids, images=pixels, **settings))
    report = output.report
    assert report.to_json()["image_tokens"] == {"all": 2 * PATCHES, "kept": sum(lengths), "late": sum(lengths)}
    assert report.prompt_tokens == 3 + sum(lengths) + 1
    assert report.prefill_share == pytest.approx(report.granted), "as published: of the model that reads merged tokens"
    share = PrefillShare.of(model.config, model.units)
    every, read = 3 + 2 * PATCHES + 1, report.prompt_tokens
    expected = report.granted * share.layer_flops(read) / share.layer_flops(every)
    assert report.unmerged_share == pytest.approx(expected)
    assert sum(report.prefill_flops.values()) == pytest.approx(count, rel=0.01)


def test_image_in_a_batch_is_merged_as_alone(make_merged, make_llava):
    model, pixels = make_merged("prumerge+", make_llava), images_of(3)
    in_batch = model.image_features(pixels)
    for features, image in zip(in_batch, pixels, strict=True):
        torch.testing.assert_close(features, model.image_features([image])[0], atol=1e-5, rtol=1e-5)


def test_projector_learns_through_merged_tokens(make_merged, make_llava):
    model = make_merged("prumerge", make_llava)
    torch.cat(model.image_features(images_of(2))).sum().backward()
    gradients = [parameter.grad for parameter in model.model.mm_projector.parameters()]
    assert all(gradient is not None and bool(gradient.abs().sum() > 0) for gradient in gradients)


def test_checkpoint_keeps_its_way_of_selecting(make_merged, make_llava, tmp_path):
    model = make_merged("prumerge+", make_llava)
    model.save_pretrained(tmp_path)
    reopened = AdaLlavaLlamaForCausalLM.from_pretrained(tmp_path)
    reopened.get_vision_tower().load_model()
    assert AdaLlavaConfig.from_pretrained(tmp_path).token_selecting == "prumerge+"
    torch.testing.assert_close(reopened.image_features(images_of(1))[0], model.image_features(images_of(1))[0])


def test_positions_of_merged_images_are_bounded(make_merged, make_llava):
    model = make_merged("prumerge+", make_llava)
    assert len(model.image_features(images_of(1))[0]) <= model.max_image_tokens((90, 30)) == PATCHES + 1
    assert bool(model.image_features(torch.zeros(1, 3, SIDE, SIDE))[0].isfinite().all())


@pytest.mark.parametrize("one_by_one", [False, True])
def test_replaced_merging_of_inputs_takes_effect(make_merged, make_llava, monkeypatch, one_by_one):
    """It encodes images in its words, or each by itself; where their tokens are is then not known."""
    model, pixels = make_merged("prumerge", make_llava), images_of(2)

    def replaced(self, input_ids, position_ids, attention_mask, past_key_values, labels, images, image_sizes=None):
        if images is None:
            return input_ids, position_ids, attention_mask, past_key_values, None, labels
        if one_by_one:
            features = [self.image_features(image[None])[0] for image in images]
        else:
            features = list(self.encode_images(images))
        text = self.get_model().embed_tokens(input_ids[input_ids != IMAGE_TOKEN_INDEX])
        return None, position_ids, attention_mask, past_key_values, torch.cat([*features, text])[None], labels

    ids = torch.tensor([[IMAGE_TOKEN_INDEX, IMAGE_TOKEN_INDEX, 5, 6]])
    lengths = [len(image) for image in model.image_features(pixels)] if one_by_one else [PATCHES, PATCHES]
    monkeypatch.setattr(type(model), "prepare_inputs_labels_for_multimodal", replaced)
    batch = model.embed(ids, images=pixels)
    assert batch.width == sum(lengths) + 2 and batch.image_spans is None
    settings = {"latency_budget": 0.6, "max_new_tokens": 2, "return_dict_in_generate": True, "pad_token_id": 0}
    report = model.generate(ids, images=pixels, **settings).report
    assert report.prompt_tokens == sum(lengths) + 2 + 1


def test_what_cannot_be_merged_is_refused(make_merged, make_llava):
    model = make_merged("prumerge", make_llava)
    with pytest.raises(OptionError, match="merges images of one crop"):
        model.image_features([images_of(2)])
    model.get_vision_tower().select_layer = -1
    with pytest.raises(OptionError, match="layer after the selected one; this CLIPVisionTower has 3 layers"):
        model.image_features(images_of(1))
