"""The web demo's budget panel, from a worker's replies."""

import pytest

from ada.serve.demo_panel import NO_BUDGET, START, BudgetPanel


@pytest.mark.anyio
async def test_budget_panel_shows_plan_and_figures_of_a_reply(make_service, client_of) -> None:
    panel, memory = BudgetPanel(), {}
    assert panel.show({}, memory) == [START]
    async with client_of(make_service()) as client:
        half, dense = [(await client.ask(max_new_tokens=3, latency_budget=b))[-1] for b in (0.5, 1.0)]
    assert panel.show({**half, "latency_budget": None}, memory) == [NO_BUDGET]
    report, full = half["latency_budget"], dense["latency_budget"]
    assert report["whole_prefill_gflops"] == pytest.approx(full["prefill_gflops"])
    assert report["whole_decode_gflops_per_token"] == pytest.approx(full["decode_gflops_per_token"])
    assert full["whole_prefill_gflops"] == pytest.approx(full["prefill_gflops"])
    (before,) = panel.show(half, memory)
    assert "not measured yet" in before and "<img" in before
    panel.show(dense, memory)
    (after,) = panel.show(half, memory)
    took = dense["time_to_first_token_ms"] - dense["queue_ms"]
    assert f"full model, last run: {took:.0f} ms" in after
    run, of = report["heads"]
    assert f"<td>{run} of {of}</td>" in after
    assert panel.show(dense, memory)[0].split("</th>")[0] != after.split("</th>")[0], "another plan, another plot"
