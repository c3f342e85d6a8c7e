"""What was computed before changes no plan and no token: asked again, asked further, in a chat, under other budgets."""

from __future__ import annotations

import pytest
import torch
from fixtures.known_device import PROFILE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ada.latency.ttft_predictor import TTFTPredictor
from ada.reuse.cache import ReuseCache

IMAGE = -200
GREEDY = {"do_sample": False, "return_dict_in_generate": True, "pad_token_id": 0, "max_new_tokens": 6}


@pytest.fixture(scope="module", params=["H", "L"])
def model(request, make_llava):
    return make_llava(request.param)


def ask(model, ids, pixels, budget, reuse=None, **options):
    images = pixels[: ids.count(IMAGE)] if IMAGE in ids else None
    return model.generate(
        torch.tensor([ids]), images=images, latency_budget=budget, reuse=reuse, **{**GREEDY, **options}
    )


def same(one, other):
    return one.sequences.tolist() == other.sequences.tolist() and one.execution_plan == other.execution_plan


prompts = st.lists(st.integers(3, 25), min_size=1, max_size=5)
budgets = st.sampled_from([None, 1.0, 0.9, 0.7, 0.6, 0.5])
calls = st.lists(st.tuples(st.booleans(), prompts, budgets, st.sampled_from(["all", "2"])), min_size=2, max_size=6)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=calls, limit=st.sampled_from([10**9, 20_000]))
def test_any_calls_answer_as_without(model, pixels, calls, limit):
    reuse, history = ReuseCache(limit), [1, 5, IMAGE]
    for further, prompt, budget, tokens in calls:
        ids = [*history, *prompt]
        found = ask(model, ids, pixels, budget, reuse, image_tokens=tokens)
        expected = ask(model, ids, pixels, budget, image_tokens=tokens)
        assert same(found, expected)
        assert reuse.num_bytes <= limit
        if further:
            history = [*ids, *found.sequences[0].tolist()]


def test_second_look_runs_the_prefix_on_the_latency_token_alone(model, pixels):
    reuse, ids = ReuseCache(10**9), [1, 5, IMAGE, 7, 8, 9]
    first = ask(model, ids, pixels, 1.0, reuse).report
    again, alone = ask(model, ids, pixels, 0.6, reuse), ask(model, ids, pixels, 0.6)
    width = first.prompt_tokens
    assert same(again, alone) and first.known_tokens == (0, 0)
    assert again.report.known_tokens == (width - 1, 0) and again.report.known_crops == 1
    flops, full = again.report.prefill_flops, alone.report.prefill_flops
    assert flops["prefix"] < full["prefix"] / 4 and flops["tunable"] == full["tunable"]
    assert flops["vision_tower"] == flops["projector"] == 0 < full["vision_tower"]


def test_further_turn_under_the_same_plan_reads_what_is_new_alone(model, pixels):
    reuse, history, read = ReuseCache(10**9), [1, 5, IMAGE, 7], 0
    for turn in range(5):
        out = ask(model, history, pixels, None, reuse)
        assert same(out, ask(model, history, pixels, None))
        prefix, tunable = out.report.known_tokens
        assert prefix == tunable and (turn == 0) == (prefix == 0)
        read += out.report.prompt_tokens - prefix
        history = [*history, *out.sequences[0].tolist(), 9, 8 + turn]
    assert read < 2 * len(history) + 20


@pytest.mark.parametrize("heads", [{}, {"key_value_heads": 4, "rank": 1}], ids=str)
def test_second_look_without_memory_to_cut_layers_answers_as_without(make_llava, pixels, heads):
    """The first look has kept the plan's heads; the second runs all of a layer's heads under gates."""
    model, reuse, ids = make_llava("H", **heads), ReuseCache(10**9), [1, 5, IMAGE, 7, 8, 9]
    ask(model, ids, pixels, 0.7, reuse)
    model.narrow_cache.max_bytes = 0
    model.narrow_cache.clear()
    again, alone = (ask(model, ids, pixels, 0.7, known, output_logits=True) for known in (reuse, None))
    assert again.report.masked_layers > 0 and again.report.known_tokens[1] > 0
    torch.testing.assert_close(torch.stack(again.logits), torch.stack(alone.logits), atol=1e-3, rtol=1e-4)
    assert same(again, alone)


def test_time_of_what_is_known_is_not_counted(model, pixels, monkeypatch):
    reuse, ids, asked = ReuseCache(10**9), [1, 5, IMAGE, 7, 8, 9], []
    predictor = TTFTPredictor(PROFILE, model.units)
    monkeypatch.setattr(predictor, "units_within", lambda budget, workload, elapsed: asked.append(workload) or 1)
    reports = [
        ask(model, prompt, pixels, "1000s", reuse, ttft_predictor=predictor).report
        for prompt in (ids, [1, 6, IMAGE, 7], ids)
    ]
    images, known = [[getattr(one, name) for one in asked] for name in ("num_images", "known_tokens")]
    assert images == [1, 1, 0, 0, 0, 0], "as the call begins, and as the plan is made"
    width = reports[-1].prompt_tokens
    assert known == [0, 0, 1, 1, width - 1, width - 1]


@pytest.mark.parametrize(
    ("options", "known"), [({}, True), ({"num_beams": 2}, False), ({"engine": "transformers"}, False)], ids=str
)
def test_budget_counts_on_known_positions_where_the_engine_decodes_alone(model, pixels, monkeypatch, options, known):
    reuse, ids, counted, grant = ReuseCache(10**9), [1, 5, IMAGE, 7, 8, 9], [], model.grant_reading
    ask(model, ids, pixels, 0.7, reuse)
    monkeypatch.setattr(
        model, "grant_reading", lambda reading, *rest: counted.append(reading.prompts[0].known) or grant(reading, *rest)
    )
    ask(model, ids, pixels, 0.7, reuse, **options)
    assert [length > 0 for length in counted] == [known]


def counted(call):
    """What a call returns, and the operations of its products."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # which alone is counted
        out = call()
    return out, counter.get_total_flops()


def test_operations_are_those_that_run(model, pixels):
    reuse, ids = ReuseCache(10**9), [1, 5, IMAGE, 7]
    for budget in (1.0, 1.0, 0.6, None):
        out, flops = counted(lambda: ask(model, ids, pixels, budget, reuse, max_new_tokens=1))  # noqa: B023
        assert flops == pytest.approx(sum(out.report.prefill_flops.values()), rel=0.02)
        ids = [*ids, 9]


@pytest.mark.parametrize("tokens", ["all", "2"])
def test_operations_are_those_of_the_image_that_was_not_known(model, pixels, tokens):
    reuse = ReuseCache(10**9)
    ask(model, [1, IMAGE, 5], pixels, None, reuse, image_tokens=tokens)
    both = [1, IMAGE, 5, IMAGE, 7]
    out, flops = counted(lambda: ask(model, both, pixels, None, reuse, image_tokens=tokens, max_new_tokens=1))
    assert out.report.known_crops == 1
    assert flops == pytest.approx(sum(out.report.prefill_flops.values()), rel=0.02)


def test_images_that_are_known_are_counted_for_their_rows(model, pixels):
    """In a batch each row has its images; one row's are known here, then both."""
    reuse, ids = ReuseCache(10**9), torch.tensor([[1, 5, IMAGE, 7], [1, 6, IMAGE, 8]])
    ask(model, [1, 5, IMAGE, 7], pixels[1:], None, reuse)
    given = {"images": pixels[:2], "latency_budget": 0.6, **GREEDY, "max_new_tokens": 1}
    for known in ([0, 1], [1, 1]):
        out, flops = counted(lambda: model.generate(ids, reuse=reuse, **given))
        assert [report.known_crops for report in out.report] == known
        parts = [report.prefill_flops for report in out.report]
        assert min(count for row in parts for count in row.values()) >= 0
        assert sum(row["vision_tower"] > 0 for row in parts) == known.count(0)
        assert flops == pytest.approx(sum(sum(row.values()) for row in parts), rel=0.05)


def test_features_are_known_whatever_decodes(model, pixels):
    reuse, ids = ReuseCache(10**9), [1, 5, IMAGE, 7]
    for known in (0, 1):
        report = ask(model, ids, pixels, 0.7, reuse, engine="transformers").report
        assert report.known_crops == known and report.known_tokens == (0, 0)
        assert (report.prefill_flops["vision_tower"] == 0) == bool(known)


def test_prompt_that_is_too_large_leaves_what_is_known_of_its_beginning(model, pixels):
    plain, history = ReuseCache(10**9), [1, 5, IMAGE, 7]
    ask(model, history, pixels, None, plain, max_new_tokens=1)
    reuse = ReuseCache(plain.num_bytes)
    ask(model, history, pixels, None, reuse, max_new_tokens=1)
    for _ in range(2):
        out = ask(model, [*history, *range(3, 25)], pixels, None, reuse, max_new_tokens=1)
        assert out.report.known_tokens[0] >= len(history) - 1


def test_other_image_other_prompt_and_other_tokens_are_not_known(model, pixels):
    reuse = ReuseCache(10**9)
    ask(model, [1, 5, IMAGE, 7], pixels[:1], 1.0, reuse)
    other = ask(model, [1, 5, IMAGE, 7], pixels[1:2], 1.0, reuse)
    assert other.report.known_tokens[0] == 2 and other.report.known_crops == 0
    assert ask(model, [2, 5, IMAGE, 7], pixels[:1], 1.0, reuse).report.known_tokens[0] == 0


def test_cache_keeps_what_was_used_last_within_its_limit(model, pixels):
    reuse = ReuseCache(10**9)
    ask(model, [1, 5, IMAGE, 7], pixels[:1], 1.0, reuse)
    small = ReuseCache(2 * reuse.num_bytes)
    for number in range(4):
        ask(model, [1, 10 + number, IMAGE, 7], pixels[number % 3 :], 1.0, small)
        assert 0 < small.num_bytes <= small.max_bytes
    assert ask(model, [1, 13, IMAGE, 7], pixels, 1.0, small).report.known_tokens[0] > 0
    assert ask(model, [1, 10, IMAGE, 7], pixels, 1.0, small).report.known_tokens[0] <= 1
    small.clear()
    assert small.num_bytes == 0 and small.find_features(pixels[0]) is None


def test_states_too_large_are_not_kept(model, pixels):
    reuse = ReuseCache(100)
    assert same(ask(model, [1, 5, IMAGE, 7], pixels, 0.7, reuse), ask(model, [1, 5, IMAGE, 7], pixels, 0.7))
    assert reuse.num_bytes == 0


def test_crops_are_known_each_by_its_pixels(model, pixels):
    reuse = ReuseCache(10**9)
    ask(model, [1, IMAGE, 5, IMAGE, 7], pixels[:2], 1.0, reuse)
    out = ask(model, [1, IMAGE, 5, IMAGE, 7], pixels[1:3], 1.0, reuse)
    assert out.report.known_crops == 1
    assert same(out, ask(model, [1, IMAGE, 5, IMAGE, 7], pixels[1:3], 1.0))
