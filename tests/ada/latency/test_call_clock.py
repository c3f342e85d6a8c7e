"""When a call looks at its clock: once the scheduler's scores are read, before the plan is chosen."""

from __future__ import annotations

import pytest
import torch

from ada.execution.call_state import Execution
from ada.execution.maskable_layer import install
from ada.latency.call_clock import CallClock
from ada.scheduling.units import Units
from llava.token_clock import TokenClock


@torch.no_grad()
@pytest.mark.parametrize("scored", [True, False])
def test_plan_is_due_with_what_was_computed_last_and_grants_for_the_gates(make_decoder, scored: bool) -> None:
    """A wait for the scores is one for all before them: with a scheduler the clock adds none."""
    model = make_decoder()
    install(model.layers)
    scores, gates, events = torch.randn(1, 2), torch.ones(1, 2, 2, 4), []

    def score(state):
        events.append("score")
        assert torch.equal(state, entered[0])
        return scores

    def due(computed):
        events.append("due")
        assert torch.equal(computed, scores if scored else entered[-1])
        return torch.tensor([3])

    def make_gates(found, granted):
        events.append("gates")
        assert found is (scores if scored else None) and granted.tolist() == [3]
        return gates

    entered: list[torch.Tensor] = []
    execution = Execution(
        Units("H", 4, 2, 4, 1),
        torch.tensor([8]),
        make_gates,
        torch.tensor([5]),
        on_plan_due=due,
        score=score if scored else None,
    )
    x = torch.randn(1, 6, 32)
    original = execution.action

    def action(layer, hidden):
        if layer.self_attn.layer_idx == 2:
            entered[:] = [hidden[:, 5], hidden]
        return original(layer, hidden)

    execution.action = action
    model(inputs_embeds=x, execution=execution)
    assert events == [*["score"] * scored, "due", "gates"]
    assert execution.granted.tolist() == [3]


@pytest.mark.parametrize("shape", [(1, 2), (1, 5, 8), (1, 2, 2, 4)])
def test_time_to_the_plan_runs_from_the_start_of_the_call(shape: tuple[int, ...]) -> None:
    tokens = TokenClock()
    tokens.called = tokens.start + 1  # a second of preprocessing
    clock = CallClock(tokens)
    assert clock.elapsed.preprocess_ms == pytest.approx(1000) and clock.elapsed.to_plan_ms is None
    tokens.called = tokens.start
    clock.plan_is_due(torch.zeros(shape))
    assert clock.elapsed.to_plan_ms > 0
