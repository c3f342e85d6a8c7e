"""Recorded steps on a GPU: one graph for every plan, and no wait within a step."""

from __future__ import annotations

import pytest
import torch
from fixtures.gated_checks import EXACT, start
from fixtures.masked_decoder import Slots, make_decoder, random_plan, random_rows, relative_error

from ada.engine.gated.usable import gated_step

pytestmark = pytest.mark.gpu


@pytest.fixture
def _cuda():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    with torch.no_grad():
        yield
    torch.set_float32_matmul_precision(precision)
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("_cuda")
def test_every_plan_replays_the_graph_of_its_number_of_rows(monkeypatch) -> None:
    recorded = []
    graph = torch.cuda.graph
    monkeypatch.setattr(torch.cuda, "graph", lambda *args, **options: recorded.append(1) or graph(*args, **options))
    model = make_decoder().to("cuda")
    rows = random_rows(4, [random_plan(seed) for seed in range(4)])
    wanted = [row.logits(model)[0] for row in rows]
    step, slots = start(model, rows[:1], num_slots=4)
    for row, want in zip(rows, wanted, strict=True):
        slots.fill(0, row)
        assert relative_error(step.step([row], row.tokens.to("cuda"))[0], want) < EXACT
    assert len(recorded) == 1
    for slot, row in enumerate(rows[:3]):
        slots.fill(slot, row)
    logits = step.step(rows[:3], torch.cat([row.tokens for row in rows[:3]]).to("cuda"))
    assert len(recorded) == 2
    assert max(map(relative_error, logits, wanted)) < EXACT


@pytest.mark.usefixtures("_cuda")
def test_joining_and_steps_do_not_wait_for_the_device() -> None:
    model = make_decoder().to("cuda")
    rows = random_rows(3, [random_plan(seed) for seed in range(3)], tokens=4)
    for row in rows:
        row.logits(model)
    step, slots = start(model, rows[:2], num_slots=4)
    slots.fill(2, rows[2])
    tokens = torch.stack([row.tokens for row in rows]).to("cuda")
    step.step(rows[:2], tokens[:2, 0])
    step.prepare(3)
    torch.cuda.set_sync_debug_mode("error")
    step.step(rows, tokens[:, 1])
    slots.move(rows[2], 0)
    step.step([rows[2], rows[1]], tokens[1:, 2])


@pytest.mark.usefixtures("_cuda")
def test_decoder_on_a_gpu_gets_the_gated_step() -> None:
    model = make_decoder().to("cuda")
    assert gated_step(model, Slots.make(model, 2)) is not None
    model.config.hidden_act = "gelu"
    assert gated_step(model, Slots.make(model, 2)) is None


@pytest.mark.usefixtures("_cuda")
def test_step_gives_the_same_bits_every_time() -> None:
    model = make_decoder(hidden=128, heads=8, kv_heads=8, neurons=344).to("cuda", torch.bfloat16)
    rows = random_rows(8, [random_plan(seed, switches=8) for seed in range(8)])
    for row in rows:
        row.logits(model)
    tokens = torch.cat([row.tokens for row in rows]).to("cuda")
    found = [start(model, rows)[0].step(rows, tokens) for _ in range(3)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
