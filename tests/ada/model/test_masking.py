"""Which layers run under a mask, and the reason that a report names."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ada.execution.narrow_cache import NarrowCache
from ada.model.masking import cut_bytes, masked_alone
from ada.model.reporting import asked_alone
from ada.scheduling.execution_plan import LayerPlan

PLANS = {
    "halves": LayerPlan((0, 1, 4), (1, 2, 7)),
    "uneven groups": LayerPlan((7,), (0, 3, 4)),
    "dense heads": LayerPlan(tuple(range(8)), (2,)),
    "no neurons": LayerPlan((3, 4), ()),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@torch.no_grad()
def test_bytes_of_a_cut_are_those_that_the_cache_takes(model_h, plan) -> None:
    cache, layer = NarrowCache(1 << 30), model_h.model.layers[3]
    held = cache.get(3, layer, plan, 8)
    assert held is not None and cut_bytes(layer, plan, 8) == cache.bytes > 0


def answer(ask, model, ids, pixels, limit, rows=1, **kwargs):
    """Greedy answers under a limit in bytes, from an empty cache."""
    kept = model.narrow_cache.max_bytes
    model.narrow_cache.clear()
    model.narrow_cache.max_bytes = limit
    try:
        out = ask(model, ids().repeat(rows, 1), images=pixels[:rows], **{"latency_budget": 0.7, **kwargs})
        reports = out.report if rows > 1 else [out.report]
        plans = out.execution_plan if rows > 1 else [out.execution_plan]
        return out, reports, [asked_alone(model, one, plan) for one, plan in zip(reports, plans, strict=True)]
    finally:
        model.narrow_cache.max_bytes = kept
        model.narrow_cache.clear()


def test_limit_of_zero_masks_what_would_be_cut_and_is_named(model_h, ids, pixels, ask) -> None:
    _, [report], [alone] = answer(ask, model_h, ids, pixels, 0)
    assert report.masked_layers > 0 and report.masking == alone.masking
    assert report.masking.endswith("--narrow-cache-gb 0 leaves no memory to cut them"), "no smaller limit helps"
    assert "--narrow-cache-gb 0" in report.summary()


def test_limit_for_some_layers_masks_the_others(make_llava, ids, pixels, ask) -> None:
    model_h = make_llava("H")  # of whose layers no other test holds any
    out, [report], _ = answer(ask, model_h, ids, pixels, 1 << 30)
    assert report.masked_layers == 0 and report.masking is None
    plan, layers = out.execution_plan, model_h.model.layers
    partial = [i for i, kept in enumerate(plan.layers) if not kept.is_empty and not plan.is_full(i)]
    limit = sum(cut_bytes(layers[i], plan.layers[i], plan.num_switches) for i in partial[:-1])
    limited, [report], [alone] = answer(ask, model_h, ids, pixels, limit)
    assert len(partial) > 1 and report.masked_layers == alone.masked_layers == 1
    assert report.masking == alone.masking and report.masking.endswith("leaves no memory to cut them; raise it")
    assert sum(report.prefill_flops.values()) > sum(
        answer(ask, model_h, ids, pixels, 1 << 30)[1][0].prefill_flops.values()
    )
    assert torch.equal(limited.sequences, out.sequences)


def test_rows_that_differ_are_named_where_they_are_the_reason(model_h, ids, pixels, ask) -> None:
    _, reports, alone = answer(ask, model_h, ids, pixels, 1 << 30, rows=2, latency_budget=[0.6, 0.9])
    assert {one.masking.split(": ")[1] for one in reports} == {"rows with different plans share the batch"}
    assert [one.masking for one in alone] == [None, None]
    _, _, alone = answer(ask, model_h, ids, pixels, 0, rows=2, latency_budget=[0.6, 0.9])
    assert all("--narrow-cache-gb 0" in one.masking for one in alone), "asked alone they would be masked, too"


def test_weights_that_cannot_be_cut_are_the_reason_under_any_limit(make_llava, ids, pixels, ask) -> None:
    model = make_llava("H")

    class OtherLinear(nn.Linear):
        """As quantised and adapted projections are: no plain ``nn.Linear``."""

    for layer in model.model.layers:
        layer.mlp.down_proj.__class__ = OtherLinear
    for limit in (0, 1 << 30):
        _, [report], [alone] = answer(ask, model, ids, pixels, limit)
        assert report.masking == alone.masking
        assert report.masking.endswith("quantised, adapted or offloaded weights cannot be cut")


def test_default_limit_is_known_before_a_layer_is_cut(make_llava, ids, pixels, ask) -> None:
    model = make_llava("H")
    assert model.narrow_cache.max_bytes is None
    out = ask(model, ids(), images=pixels[:1], latency_budget=1.0)
    assert masked_alone(model, out.execution_plan) == (frozenset(), frozenset())
    ask(model, ids(), images=pixels[:1], latency_budget=0.7)
    assert 0 < model.narrow_cache.max_bytes <= 256 << 20
