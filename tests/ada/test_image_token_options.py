"""The flags of image tokens: as argparse reads them, and what a loaded model makes of them."""

import argparse
import re

import pytest
import torch

from ada import overlay
from ada.budget import LatencyBudget
from ada.image_tokens.amount import ALL_IMAGE_TOKENS, AUTO, ImageTokens
from ada.image_tokens.selectors import SELECTORS
from ada.protocols import is_adaptive
from llava.errors import OptionError
from llava.model import LlavaLlamaForCausalLM
from llava.model.loaded_model import open_model

PROMPT = torch.tensor([[1, 5, -200, 6, 7]])
GREEDY = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, "return_dict_in_generate": True}


@pytest.fixture
def plain(make_config, tower_folder) -> LlavaLlamaForCausalLM:
    """A plain LLaVA, as it is loaded from a checkpoint without a scheduler."""
    torch.manual_seed(1)
    model = LlavaLlamaForCausalLM(make_config(mm_vision_tower=str(tower_folder), num_hidden_layers=4)).eval()
    model.get_vision_tower().load_model()
    model.generation_config.eos_token_id = None
    return model


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))


def parsed(*flags: str, program: str = "cli") -> dict:
    parser = argparse.ArgumentParser()
    overlay.add_arguments(parser=parser, program=program)
    return vars(parser.parse_args(flags))


def options_of(model, **options) -> dict:
    overlay.prepare_model(model=model, options=options)
    return dict(overlay.generation_options(model=model, tokenizer=None, options=options))


def answer(model, pixels, **options) -> list[int]:
    return model.generate(PROMPT, images=pixels, **GREEDY, **options).sequences[0].tolist()


@pytest.mark.parametrize("text", ["all", "auto", "144", "25%", "50%/25%", "3/1"])
def test_image_tokens_flag_reads_amounts(text) -> None:
    assert parsed("--image-tokens", text)["image_tokens"] == ImageTokens.parse(text)


@pytest.mark.parametrize("text", ["0", "-3", "200%", "-5%", "0%", "many", "1.5", "", "50%/", "1/2/3"])
def test_image_tokens_flag_refuses_what_is_no_amount_by_value_and_without_repeating_its_name(text, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        parsed("--image-tokens", text)
    said = capsys.readouterr().err
    assert f"argument --image-tokens: {text!r}; expected all, auto, a number of tokens" in said


@pytest.mark.parametrize("name", ["salient", "grid", "fastv", "divprune/fastv", "random/learned"])
def test_token_selector_flag_reads_one_or_two_names(name) -> None:
    assert parsed("--token-selector", name)["token_selector"] == name


@pytest.mark.parametrize("name", ["best", "fastv/salient", "salient/grid", "salient/", ""])
def test_token_selector_flag_refuses_other_names(name, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        parsed("--token-selector", name)
    assert f"argument --token-selector: {name!r}; expected one of random, grid" in capsys.readouterr().err


@pytest.mark.parametrize("option", [{"image_tokens": "all"}, {"token_selector": "grid"}])
def test_plain_model_with_all_image_tokens_answers_as_without_flags(plain, pixels, option) -> None:
    ids = {"input_ids": PROMPT, "images": pixels}
    with torch.no_grad():
        before, tokens = plain(**ids).logits, answer(plain, pixels)
        keywords = options_of(plain, **option)
        assert is_adaptive(plain) and plain.scheduler is None
        assert torch.equal(plain(**ids).logits, before)
    assert answer(plain, pixels, **keywords) == tokens


def test_plain_model_with_fewer_image_tokens_reads_fewer_in_all_its_layers(plain, pixels) -> None:
    keywords = options_of(plain, image_tokens="50%", token_selector="grid")
    output = plain.generate(PROMPT, images=pixels, **GREEDY, **keywords)
    assert output.report.image_tokens.to_json() == {"all": 4, "kept": 2, "late": 2}
    assert output.report.layers == (4, 4) and output.report.heads[0] == output.report.heads[1]


def test_plain_model_without_options_stays_as_it_is(plain) -> None:
    assert options_of(plain) == {} and type(plain) is LlavaLlamaForCausalLM


def test_plain_model_with_budget_and_fewer_image_tokens_needs_no_planner(plain) -> None:
    assert options_of(plain, latency_budget="0.5", image_tokens="auto")["image_tokens"] == AUTO
    assert is_adaptive(plain)


@pytest.mark.parametrize("tokens", [None, "all"])
def test_plain_model_with_budget_and_all_image_tokens_is_refused(plain, tokens) -> None:
    with pytest.raises(OptionError, match=r"--latency-budget needs a scheduler.*--image-tokens auto"):
        overlay.prepare_model(model=plain, options={"latency_budget": "0.5", "image_tokens": tokens})
    assert not is_adaptive(plain)


def test_model_that_was_made_adaptive_for_tokens_still_refuses_a_budget_alone(plain) -> None:
    """As ``/budget 0.5`` in a chat that began with ``--image-tokens``."""
    options_of(plain, image_tokens="50%")
    with pytest.raises(OptionError, match="--latency-budget needs a scheduler"):
        overlay.prepare_model(model=plain, options={"latency_budget": "0.5", "image_tokens": "all"})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image_tokens": "auto"}, "'auto', and there is no latency budget"),
        ({"image_tokens": "auto", "latency_budget": 0.7, "image_file": None}, "'auto', and there is no image"),
        ({"image_tokens": "200%"}, "--image-tokens is '200%'; expected all, auto"),
        ({"image_tokens": True}, "--image-tokens is True"),
        ({"token_selector": "best"}, "the token selector is 'best'; expected one of random"),
        ({"token_selector": "learned"}, "'learned', and this checkpoint has no token scorer"),
    ],
)
@pytest.mark.parametrize("adaptive", [False, True])
def test_options_that_cannot_be_followed_are_refused_as_the_model_is_loaded(
    plain, make_llava, adaptive, options, said
) -> None:
    model = make_llava("H") if adaptive else plain
    with pytest.raises(OptionError, match=said):
        overlay.prepare_model(model=model, options=options)


def test_worker_may_have_auto_as_its_default_without_a_budget(make_llava) -> None:
    overlay.prepare_model(model=make_llava("H"), options={"image_tokens": "auto", "adaptive_budget": None})


def test_request_for_image_tokens_on_a_model_that_was_loaded_plain_is_refused(plain) -> None:
    with pytest.raises(OptionError, match="loaded to read all image tokens"):
        overlay.generation_options(model=plain, tokenizer=None, options={"image_tokens": "25%"})


@pytest.mark.parametrize("selector", SELECTORS)
def test_every_selector_is_accepted_on_a_clip_tower(plain, selector) -> None:
    overlay.prepare_model(model=plain, options={"image_tokens": "50%", "token_selector": selector})


@pytest.mark.parametrize("selector", ["cls", "prumerge", "cls/fastv"])
def test_selector_that_reads_a_class_token_is_refused_as_a_siglip_model_is_loaded(make_checkpoint, selector) -> None:
    options = {"image_tokens": 2, "token_selector": selector, "device": "cpu"}
    with pytest.raises(OptionError, match=r"class token of a CLIP tower.* is a SigLipVisionTower"):
        open_model({"model_path": str(make_checkpoint(siglip=True)), **options})


@pytest.mark.parametrize("selector", ["shrink", "prumerge+"])
def test_auto_with_a_selector_that_acts_before_the_budget_is_refused(make_llava, selector) -> None:
    options = {"image_tokens": "auto", "token_selector": selector, "latency_budget": 0.7}
    with pytest.raises(OptionError, match=f"'auto' with the token selector '{re.escape(selector)}'"):
        overlay.prepare_model(model=make_llava("H"), options=options)


@pytest.mark.parametrize(
    ("config", "options"),
    [
        ({}, {"token_selector": "shrink"}),
        ({}, {"token_selector": "shrink/fastv"}),
        ({"token_selector": "shrink"}, {}),
        ({"token_selector": "shrink"}, {"token_selector": "shrink"}),
    ],
    ids=str,
)
@pytest.mark.parametrize("budget", ["0.3", "0.7"])
def test_shrink_under_a_budget_alone_reads_all_that_a_checkpoint_trained_for_auto_has(
    make_llava, pixels, config, options, budget
) -> None:
    """Whoever names no amount gets the answer to ``all``, and is not refused once the images are encoded."""
    model = make_llava("H", image_token_dropout=0.25, **config)
    given = {**options, "latency_budget": budget}
    found, everything = (
        model.generate(PROMPT, images=pixels, **GREEDY, **options_of(model, **given, image_tokens=amount))
        for amount in (None, "all")
    )
    assert found.report.image_tokens.to_json() == {"all": 4, "kept": 4, "late": 4}
    assert found.sequences.tolist() == everything.sequences.tolist()
    fewer = model.generate(PROMPT, images=pixels, **GREEDY, **options_of(model, **given, image_tokens=1))
    assert fewer.report.image_tokens.front == (1,)


@pytest.mark.parametrize(
    ("config", "selector", "expected"),
    [
        ("salient", None, AUTO),
        ("salient", "shrink", ALL_IMAGE_TOKENS),
        ("salient", "shrink/fastv", ALL_IMAGE_TOKENS),
        ("shrink", None, ALL_IMAGE_TOKENS),
        ("shrink", "salient", AUTO),
        ("shrink", "fastv", AUTO),  # it chooses among all that enter
        ("prumerge", None, AUTO),  # which finds its number in the image
    ],
)
def test_default_amount_leaves_to_a_budget_what_is_chosen_after_it_is_shared_out(
    make_llava, config, selector, expected
) -> None:
    model = make_llava("H", image_token_dropout=0.25, token_selector=config)
    assert model.default_amount(LatencyBudget(0.5), selector) == expected
    assert model.default_amount(None, selector) == ALL_IMAGE_TOKENS


@pytest.mark.parametrize(("amount", "refused"), [("50%/25%", True), ("25%", False), ("all/25%", False), (None, False)])
def test_late_selector_alone_is_checked_with_the_models_own_where_both_cut(make_checkpoint, amount, refused) -> None:
    folder = make_checkpoint(siglip=True, token_selector="cls", num_hidden_layers=4)
    options = {"model_path": str(folder), "device": "cpu", "image_tokens": amount, "token_selector": "fastv"}
    if not refused:
        assert is_adaptive(open_model(options).model)
        return
    with pytest.raises(OptionError, match=r"class token of a CLIP tower.* is a SigLipVisionTower"):
        open_model(options)


def test_checkpoint_of_merged_tokens_refuses_to_leave_some_out(make_llava) -> None:
    model = make_llava("H", token_selecting="prumerge")
    with pytest.raises(OptionError, match=r"trained on merged image tokens \(prumerge\)"):
        overlay.prepare_model(model=model, options={"image_tokens": "50%"})
    overlay.prepare_model(model=model, options={"image_tokens": "all"})


@pytest.mark.parametrize(("budget", "tokens"), [(0.9, 3), (0.75, 2), (0.65, 1), (0.3, 1)])
def test_plain_model_keeps_a_budget_by_image_tokens_alone(plain, pixels, budget, tokens) -> None:
    """All layers run dense; how many tokens that leaves is counted by the operations of report and full model."""
    keywords = options_of(plain, latency_budget=budget, image_tokens="auto")
    report = plain.generate(PROMPT, images=pixels, **GREEDY, **keywords).report
    full = plain.generate(PROMPT, images=pixels, **GREEDY).report
    assert report.image_tokens.front == (tokens,) and report.layers == (4, 4) and report.masked_layers == 0
    assert report.heads == full.heads and report.neurons == full.neurons
    spent, of = (one.prefill_flops["prefix"] + one.prefill_flops["tunable"] for one in (report, full))
    assert (spent / of <= budget) == report.budget_met == (budget > 0.5)


def test_plain_model_under_a_time_needs_a_planner_also_with_image_tokens(plain) -> None:
    with pytest.raises(OptionError, match="a time, which image tokens alone cannot keep to"):
        overlay.prepare_model(model=plain, options={"latency_budget": "850ms", "image_tokens": "auto"})
