"""A promise of quality: the cheap answer where it is sure, else exactly the full model's, and what the report says."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ada.options import prepare_model
from ada.quality.disagreement import read_disagreement
from ada.quality.table import FILE_NAME, Promise, promises_of, read_promises, save_promises
from ada.reuse.cache import ReuseCache
from llava.errors import CheckpointError, OptionError
from llava.model import LlavaLlamaForCausalLM
from llava.model.builder import load_pretrained_model

IMAGE = -200
GREEDY = {"do_sample": False, "return_dict_in_generate": True, "pad_token_id": 0, "max_new_tokens": 5}
PROMISE = Promise(0.02, 0.6, 0.5, 0.7, 0.8, 0.01, 2000)


@pytest.fixture
def folder(make_adaptive_checkpoint):
    return make_adaptive_checkpoint()


@pytest.fixture
def pixels():
    return torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def opened(folder):
    return load_pretrained_model(str(folder), None, "any", device="cpu")[1]


def ask(model, pixels, ids=(1, 5, IMAGE, 7), **options):
    return model.generate(torch.tensor([ids]), images=pixels[:1], **{**GREEDY, **options})


def in_vain(cheap):
    """The operations of a try that the full model's answer does not use: it takes the image's features from it."""
    return sum(count for part, count in cheap.prefill_flops.items() if part not in ("vision_tower", "projector"))


def with_threshold(folder, threshold):
    save_promises(folder, [replace(PROMISE, threshold=threshold)], {})
    return opened(folder)


def test_sure_answers_are_the_cheap_plans(folder, pixels):
    model = with_threshold(folder, 0.0)
    out, cheap = ask(model, pixels, max_disagreement=0.05), ask(model, pixels, latency_budget=0.6)
    assert out.sequences.tolist() == cheap.sequences.tolist() and out.execution_plan == cheap.execution_plan
    quality = out.report.quality
    assert (quality.stage, quality.disagreement, quality.refused_flops) == ("cheap", 0.02, 0)
    assert quality.margin >= 0 and out.report.summary().startswith("cheap answer (margin ")


@pytest.mark.parametrize("threshold", [1e9, math.inf])
def test_unsure_answers_are_the_full_models(folder, pixels, threshold):
    model = with_threshold(folder, threshold)
    out, full = ask(model, pixels, max_disagreement=0.02), ask(model, pixels)
    assert out.sequences.tolist() == full.sequences.tolist() and out.execution_plan == full.execution_plan
    cheap = ask(model, pixels, latency_budget=0.6).report
    assert out.report.quality.stage == "full"
    assert out.report.quality.refused_flops == in_vain(cheap)
    json.dumps(out.report.to_json(), allow_nan=False)


def test_refused_try_and_answer_are_the_operations_that_run(folder, pixels):
    model = with_threshold(folder, math.inf)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # which alone is counted
        report = ask(model, pixels, max_disagreement=0.02, max_new_tokens=1).report
    total = report.quality.refused_flops + sum(report.prefill_flops.values())
    assert total == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_margin_is_that_of_the_first_tokens_probabilities(folder, pixels):
    model = with_threshold(folder, 0.0)
    out = ask(model, pixels, max_disagreement=0.02)
    cheap = ask(model, pixels, latency_budget=0.6, output_logits=True)
    best = cheap.logits[0][0].log_softmax(-1).topk(2).values
    assert out.report.quality.margin == pytest.approx(float(best[0] - best[1]), abs=1e-5)


def test_loosest_promise_that_is_strict_enough_and_cheapest_is_taken(folder):
    promises = [
        replace(PROMISE, disagreement=d, share=s) for d, s in ((0.01, 0.9), (0.02, 0.6), (0.05, 0.4), (0.05, 0.5))
    ]
    save_promises(folder, promises, {"questions": 1})
    table = read_promises(folder)
    assert [table.best(d).share for d in (0.015, 0.02, 0.03, 0.5)] == [0.9, 0.6, 0.6, 0.4]
    with pytest.raises(OptionError, match=r"promises 0\.01, 0\.02, 0\.05; measure it"):
        table.best(0.005)


def test_promises_of_other_weights_are_none(folder):
    save_promises(folder, [PROMISE], {})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rope_theta": 5.0}))
    with pytest.raises(CheckpointError, match="other weights, or another config"):
        read_promises(folder)
    (folder / FILE_NAME).write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read as promises"):
        read_promises(folder)
    (folder / FILE_NAME).unlink()
    with pytest.raises(OptionError, match=r"needs .*promises\.json, which is not there; measure them"):
        read_promises(folder)


def test_promises_of_another_frontier_are_none(folder):
    """The cheap plan's image tokens are what the frontier makes of its budget."""
    save_promises(folder, [PROMISE], {})
    assert read_promises(folder).promises == (PROMISE,)
    (folder / "frontier.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"frontier\.json, than are here"):
        read_promises(folder)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"latency_budget": 0.5}, "leave out --latency-budget"),
        ({"latency_budget": 0.5, "image_tokens": "2"}, "leave out --latency-budget, --image-tokens$"),
        ({"token_selector": "salient"}, "leave out --token-selector"),
        ({"granted_units": torch.tensor([2])}, "leave out --granted-units"),
        ({"planner": "random"}, "--planner is 'random', and promises .* measured with 'learned'"),
        ({"do_sample": True}, "promise for greedy answers"),
        ({"engine": "ada", "num_beams": 2}, "promise for greedy answers"),
    ],
)
def test_what_goes_with_no_promise_is_refused(folder, pixels, options, complaint):
    model = with_threshold(folder, 0.0)
    with pytest.raises(OptionError, match=complaint):
        ask(model, pixels, max_disagreement=0.02, **options)
    assert promises_of(model.config).promises


@pytest.mark.parametrize(("value", "share"), [("2%", 0.02), (0.05, 0.05), ("0.1", 0.1), (" 5 % ", 0.05)])
def test_shares_are_read(value, share):
    assert read_disagreement(value) == pytest.approx(share)


@pytest.mark.parametrize("value", ["0", "1", "150%", "x", "nan", "-2%", ""])
def test_other_shares_are_refused(value):
    with pytest.raises(OptionError, match=r"--max-disagreement is .*; expected a share in \(0, 1\) such as 2%"):
        read_disagreement(value)


def test_checkpoints_own_planner_by_name_goes_with_a_promise(folder, pixels):
    out = ask(with_threshold(folder, 0.0), pixels, max_disagreement=0.02, planner="learned")
    assert out.report.quality.stage == "cheap"


@pytest.mark.parametrize("times", [1, 2])
def test_refused_try_is_counted_by_what_it_found_known(folder, pixels, times):
    """The full model's reading, which finds more known, is counted apart."""
    model, reuse = with_threshold(folder, math.inf), ReuseCache(10**9)
    cheap = model.generate(
        torch.tensor([(1, 5, IMAGE, 7)]), images=pixels[:1], latency_budget=0.6, reuse=ReuseCache(10**9), **GREEDY
    )
    for _ in range(times):
        out = ask(model, pixels, max_disagreement=0.02, reuse=reuse)
    refused = out.report.quality.refused_flops
    alone = in_vain(cheap.report)
    assert refused == alone if times == 1 else 0 < refused < alone
    full = ask(model, pixels, image_tokens="all")
    assert out.sequences.tolist() == full.sequences.tolist()
    assert 0 < sum(out.report.prefill_flops.values()) < sum(full.report.prefill_flops.values())


def test_promise_on_a_model_without_cheaper_plans_is_refused(make_checkpoint):
    plain = opened(make_checkpoint(LlavaLlamaForCausalLM))
    with pytest.raises(OptionError, match=r"--max-disagreement is 0\.02, and this checkpoint .* has no cheaper plans"):
        prepare_model(plain, {"max_disagreement": 0.02})


def test_programs_refuse_a_promise_under_another_planner_as_they_start(folder):
    model = with_threshold(folder, 0.0)
    with pytest.raises(OptionError, match="--planner is 'even'"):
        prepare_model(model, {"max_disagreement": 0.02, "planner": "even"})
