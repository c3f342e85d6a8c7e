"""A plan that shrinks in mid-answer: the logits are those of a model that has kept every key and value."""

from __future__ import annotations

import itertools

import pytest
import torch
from fixtures.known_device import PROFILE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, repeat_kv

from ada.budget import TimeBudget
from ada.engine.engine_rows import EngineRows
from ada.execution.maskable_layer import channel_gates
from ada.latency.pacer import pacer_of
from ada.latency.ttft_predictor import TTFTPredictor
from llava.token_clock import TokenClock

IMAGE = -200


@pytest.fixture(scope="module", params=["H", "L"])
def model(request, make_llava):
    return make_llava(request.param)


def slow_logits(model, embeds, gates):
    """Logits of all positions (T, V), of all keys and values; gates (T, L, 2, A) say what counts at each position."""
    decoder, hidden = model.model, embeds
    positions = torch.arange(embeds.shape[1])[None]
    rope = decoder.rotary_emb(hidden, positions)
    causal = torch.full((embeds.shape[1],) * 2, float("-inf")).triu(1)
    for layer, own in zip(decoder.layers, gates.unbind(1), strict=True):
        attention, normed = layer.self_attn, layer.input_layernorm(hidden)
        q, k, v = (
            projection(normed).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        q, k = apply_rotary_pos_emb(q, k, *rope)
        group = q.shape[1] // k.shape[1]
        scores = q @ repeat_kv(k, group).mT * attention.scaling + causal
        mixed = (scores.softmax(-1) @ repeat_kv(v, group)).transpose(1, 2)[0]  # (T, H, d)
        mixed = mixed * own[:, 0].repeat_interleave(group, dim=1)[..., None]
        hidden = hidden + attention.o_proj(mixed.flatten(1))[None]
        normed = layer.post_attention_layernorm(hidden)[0]
        neurons = layer.mlp.act_fn(layer.mlp.gate_proj(normed)) * layer.mlp.up_proj(normed)
        hidden = hidden + layer.mlp.down_proj(neurons * channel_gates(own[:, 1], neurons.shape[1]))[None]
    return model.lm_head(decoder.norm(hidden))[0]


@torch.no_grad()
def read(model, pixels, units, rows=1):
    """Rows of one prompt under so many units, what reads them, and their embeddings."""
    ids = torch.tensor([[1, 5, IMAGE, 7, 9, 11]])
    batch, execution = model.begin(model.embed(ids, images=pixels[:1]), torch.tensor([units]))
    engine = EngineRows(model, rows + 1, model.get_input_embeddings().weight)
    logits = engine.read(batch, execution)
    return engine, execution, batch.embeds, logits


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@torch.no_grad()
def test_tokens_are_those_with_all_keys(model, pixels, data):
    full = model.units.tunable
    schedule = sorted(data.draw(st.lists(st.integers(0, full), min_size=2, max_size=6), label="units"), reverse=True)
    steps = data.draw(st.lists(st.integers(1, 3), min_size=len(schedule), max_size=len(schedule)), label="steps")
    engine, execution, embeds, logits = read(model, pixels, schedule[0])
    row = engine.rows[0]
    gates = row.gates.expand(embeds.shape[1], -1, -1, -1)
    for units, count in zip(schedule, steps, strict=True):
        plan = execution.smaller_plan(0, units)
        assert plan is not None, "fewer units of the same scores are a plan within"
        engine.shrink(row, plan)
        for _ in range(count):
            expected = slow_logits(model, embeds, gates)[-1]
            torch.testing.assert_close(logits[0], expected, atol=2e-5, rtol=2e-4)
            token = logits[0].argmax()
            embeds = torch.cat([embeds, model.get_input_embeddings()(token[None])[None]], dim=1)
            gates = torch.cat([gates, plan.gates()[None]])
            logits = engine.step(token[None])


@torch.no_grad()
def test_row_that_shrinks_leaves_others_as_they_are(model, pixels):
    alone, _, _, _ = read(model, pixels, model.units.tunable)
    engine, _, _, logits = read(model, pixels, model.units.tunable, rows=2)
    batch, other = model.begin(model.embed(torch.tensor([[1, 8, 9]])), torch.tensor([model.units.tunable]))
    engine.read(batch, other)
    token = logits[0].argmax()[None]
    for units in (model.units.tunable, model.units.tunable // 2, 0):
        engine.shrink(engine.rows[1], other.smaller_plan(0, units))
        both, one = engine.step(torch.cat([token, token])), alone.step(token)
        torch.testing.assert_close(both[0], one[0], atol=2e-5, rtol=2e-4)
        token = one[0].argmax()[None]


@torch.no_grad()
def test_plan_that_grows_is_refused(model, pixels):
    engine, execution, _, _ = read(model, pixels, model.units.tunable)
    row, full = engine.rows[0], engine.rows[0].plan
    engine.shrink(row, execution.smaller_plan(0, 0))
    with pytest.raises(ValueError, match="of which there are no keys"):
        engine.shrink(row, full)


def test_plans_of_fewer_units_are_within(model, pixels):
    _, execution, _, _ = read(model, pixels, model.units.tunable)
    plans = [execution.smaller_plan(0, units) for units in range(model.units.tunable, -1, -1)]
    assert all(smaller.is_within(larger) for larger, smaller in itertools.pairwise(plans))
    assert not plans[0].is_within(plans[-1])


@torch.no_grad()
@pytest.mark.parametrize("planner", ["even", "last", "random", "learned"])
def test_plan_that_shrinks_twice_stays_within_what_runs(model, pixels, planner):
    """Untrained planners place fewer units elsewhere: within the prefill's plan, and not within what runs by then."""
    predictor = TTFTPredictor(PROFILE, model.units)
    batch = model.embed(torch.tensor([[1, 5, IMAGE, 7]]), images=pixels[:1])
    batch, execution = model.begin(batch, torch.tensor([model.units.tunable]), planner)
    engine = EngineRows(model, 1, model.get_input_embeddings().weight)
    token = engine.read(batch, execution).argmax(dim=-1)
    clock = TokenClock()
    row = engine.rows[0]
    row.pacer = pacer_of([TimeBudget(token_ms=1e-9, later_tokens=20)], predictor, clock, execution)
    seen = [row.plan]
    for units in range(model.units.tunable - 1, -1, -1):
        current = seen[-1]
        plan = execution.smaller_plan(0, units, current)
        assert plan is None or plan.is_within(current)
        if plan is not None:
            engine.shrink(row, plan)
            seen.append(plan)
    assert len(seen) > 1
    clock.tick(token.device, token)
    engine.step(token)  # the pacer, which would shrink further, finds nothing within


@torch.no_grad()
def test_rows_on_a_cpu_shrink_only_alone(model, pixels):
    engine, execution, _, logits = read(model, pixels, model.units.tunable, rows=2)
    batch, other = model.begin(model.embed(torch.tensor([[1, 8, 9]])), torch.tensor([model.units.tunable]))
    engine.read(batch, other)
    first, token = engine.rows[0], logits[0].argmax()[None]
    clock = TokenClock()
    hurried = TimeBudget(token_ms=1e-9, later_tokens=20)
    first.pacer = pacer_of([hurried], TTFTPredictor(PROFILE, model.units), clock, execution)
    clock.tick(token.device, token)
    engine.step(torch.cat([token, token]))
    assert first.plan == execution.finish(1)[0], "all layers that differ would run dense"
    engine.remove(engine.rows[1])
    engine.step(token)
    assert first.plan != execution.finish(1)[0]
