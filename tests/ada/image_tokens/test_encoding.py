"""Encoding for a call's selector: nothing stays on the model, bundled models answer with every selector."""

import copy
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import ada
from ada.image_tokens.selectors import SELECTORS
from ada.model.families import make_adaptive
from ada.train.plain_llava import leave_tokens_out
from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import ImageError, OptionError
from llava.model import LlavaLlamaForCausalLM
from llava.model.loaded_model import open_model

TAG = IMAGE_TOKEN_INDEX
GREEDY = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0}


@torch.no_grad()
def test_threads_with_other_selectors_on_one_model_answer_as_alone(patched, pixels_of):
    chance = random.Random(0)
    amounts, prompts = [1, 9, "50%", "all", None], [[1, TAG, 5], [1, TAG, 6, TAG], [1, 7]]
    calls = [
        {
            "row": chance.choice(prompts),
            "image_tokens": chance.choice(amounts),
            "token_selector": selector,
            "seed": seed,
        }
        for seed in range(5)
        for selector in (*SELECTORS, None)
    ]

    def answer(call):
        settings = dict(call)
        row, seed = settings.pop("row"), settings.pop("seed")
        images = pixels_of(row.count(TAG), seed) if TAG in row else None
        output = patched.generate(
            torch.tensor([row]), images=images, output_logits=True, return_dict_in_generate=True, **settings, **GREEDY
        )
        return torch.cat(output.logits)

    before = [answer(call) for call in calls]
    with ThreadPoolExecutor(8) as pool:
        for alone, threaded in zip(before, pool.map(answer, calls), strict=True):
            torch.testing.assert_close(threaded, alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("selector", ["cls", "shrink", "prumerge"])
@torch.no_grad()
def test_forward_reads_the_tokens_that_generate_reads(patched, pixels_of, selector):
    ids, pixels = torch.tensor([[1, TAG, 5]]), pixels_of(1)
    settings = {"images": pixels, "image_tokens": 9, "token_selector": selector, "latency_budget": 0.7}
    logits = patched(ids, **settings).logits[:, -1]
    output = patched.generate(ids, return_dict_in_generate=True, output_logits=True, **settings, **GREEDY)
    torch.testing.assert_close(output.logits[0], logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("own", ["cls", "shrink", "prumerge"])
@pytest.mark.parametrize("amount", ["50%/25%", "9/4", "25%", "all/25%", "all"])
@torch.no_grad()
def test_late_selector_alone_is_joined_by_the_models_own_where_both_cut(make_patched, pixels_of, own, amount):
    """As if both had been named; an amount for later layers alone leaves all that enter, as with any other."""
    model, ids = make_patched(token_selector=own, image_aspect_ratio="pad"), torch.tensor([[1, TAG, 5, TAG]])
    settings = {"images": pixels_of(2), "return_dict_in_generate": True, "output_logits": True, **GREEDY}
    both, late = (f"{own}/fastv", amount) if amount[0] in "59" else ("salient/fastv", amount)
    if amount == "25%":
        late = "all/25%"
    found = model.generate(ids, image_tokens=amount, token_selector="fastv", **settings)
    expected = model.generate(ids, image_tokens=late, token_selector=both, **settings)
    assert found.report.image_tokens == expected.report.image_tokens
    torch.testing.assert_close(torch.cat(found.logits), torch.cat(expected.logits), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("selector", ["cls", "shrink"])
def test_training_rows_that_lose_their_ends_lose_the_ends_of_images(make_patched, pixels_of, selector):
    model = make_patched(tokenizer_model_max_length=20)
    ids = torch.tensor([[1, TAG, 5], [1, 6, TAG]])
    labels = ids.masked_fill(ids < 0, 0)
    model.train()
    outputs = model(ids, images=pixels_of(2), labels=labels, image_tokens="80%", token_selector=selector)
    outputs.loss.backward()
    assert outputs.logits.shape[1] <= 21 and bool(outputs.loss.isfinite())


@pytest.mark.parametrize("selector", ["cls", "shrink"])
def test_plain_llava_in_training_reads_the_tokens_that_the_selector_keeps(
    make_config, clip_folder, pixels_of, selector
):
    torch.manual_seed(0)
    plain = LlavaLlamaForCausalLM(make_config(mm_vision_tower=str(clip_folder))).eval()
    plain.get_vision_tower().load_model()
    adaptive = copy.deepcopy(plain)
    make_adaptive(adaptive)
    leave_tokens_out(plain)
    ids, labels = torch.tensor([[1, TAG, 5, 6]]), torch.tensor([[-100, -100, 5, 6]])
    given = {"labels": labels, "images": pixels_of(1), "image_tokens": 9, "token_selector": selector}
    first, second = (model(ids, **given).loss.item() for model in (plain, adaptive))
    other = plain(ids, **{**given, "token_selector": "random"}).loss.item()
    assert first == pytest.approx(second, rel=1e-5) and first != other


def test_images_that_do_not_fit_the_tags_are_refused_as_ever(patched, pixels_of):
    ids = torch.tensor([[1, TAG, 5]])
    with pytest.raises(ImageError, match="1 image tag"):
        patched.generate(ids, images=pixels_of(2), image_tokens=9, token_selector="cls", **GREEDY)


def test_prompt_embedded_without_the_selector_is_refused(patched, pixels_of):
    batch = patched.embed(torch.tensor([[1, TAG, 5]]), images=pixels_of(1))
    for selector in ("cls", "shrink"):
        with pytest.raises(OptionError, match=r"before a budget|give embed"):
            patched.generate_from_embeds(batch, image_tokens=9, token_selector=selector, **GREEDY)


@pytest.fixture(scope="module")
def bundled():
    """The bundled model H, in float32, on the CPU."""
    folder = ada.__path__[0] + "/checkpoints/shapes-H"
    return open_model({"model_path": folder, "device": "cpu"}).model.float()


@pytest.mark.parametrize("selector", SELECTORS)
@torch.no_grad()
def test_bundled_model_answers_with_every_selector(bundled, selector):
    pixels = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[1, 30, TAG, 40, 41, 42]])
    settings = {"images": pixels, "latency_budget": 0.75, "return_dict_in_generate": True, **GREEDY}
    everything = bundled.generate(ids, **settings)
    output = bundled.generate(ids, image_tokens="25%", token_selector=selector, **settings)
    assert output.sequences.shape[1] >= 1
    assert output.report.image_tokens.to_json() == {"all": 36, "kept": 9, "late": 9}
    assert output.report.prompt_tokens == everything.report.prompt_tokens - 27
    assert sum(output.report.prefill_flops.values()) < 0.8 * sum(everything.report.prefill_flops.values())


@torch.no_grad()
def test_auto_chooses_a_number_for_class_attention(patched, pixels_of):
    ids = torch.tensor([[1, TAG, 5]])
    settings = {"images": pixels_of(1), "latency_budget": 0.35, "return_dict_in_generate": True, **GREEDY}
    found = patched.generate(ids, image_tokens="auto", token_selector="cls", **settings)
    number = found.report.image_tokens.front[0]
    fixed = patched.generate(ids, image_tokens=number, token_selector="cls", **settings)
    assert number < 36 and torch.equal(found.sequences, fixed.sequences)
