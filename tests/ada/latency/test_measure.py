"""Calibration: the runs, the rounds, and the profile that is fitted to them."""

import dataclasses
import math
import random
from types import SimpleNamespace

import pytest
from fixtures.known_device import DECODE, KNOWN, KnownDevice

from ada.engine.engine_rows import EngineRows
from ada.latency import measure, step_timer
from ada.latency.design import Design
from ada.latency.device_profile import DeviceFingerprint
from ada.latency.latency_model import Workload, decode_terms, predict
from ada.latency.measure import ModelTimer, calibrate, time_workloads
from ada.latency.step_timer import StepTimer
from ada.scheduling.units import Units
from llava.errors import OptionError


def test_calibrate_of_a_known_device_is_exact(model) -> None:
    profile, held_out = calibrate(model, 64, timer=KnownDevice(model))
    assert len(held_out) == 16 and profile.surroundings == DeviceFingerprint.of(model)
    assert profile.spread == pytest.approx(1) and profile.rest_spread == pytest.approx(1)
    assert all(errors["p95"] < 1e-6 for errors in profile.errors.values())


def test_calibrate_of_known_decode_steps_is_exact(model) -> None:
    """Steps of several rows have no loop around them. An answer starts 6 ms slower, and is slow by a fifth."""
    known, units = KnownDevice(model), model.units

    def timer(workload):
        run = known(workload)
        total_ms = run.prefill.ttft_ms + 1.2 * (9 * run.inter_token_ms + 6)
        return dataclasses.replace(run, new_tokens=10, start_ms=6.0, total_ms=total_ms)

    def timer_of_steps(workload):
        return predict(DECODE, decode_terms(workload, units, in_loop=False))

    profile, _ = calibrate(model, 64, timer=timer, timer_of_steps=timer_of_steps)
    assert (profile.start_ms, profile.token_spread) == pytest.approx((6.0, 1.2))
    for step in (Workload(800, 3, 0, rows=8), Workload(100, 0, 0), Workload(1500, units.tunable, 0, rows=3)):
        expected = KNOWN.inter_token_ms(step, units)
        assert profile.latency_model.inter_token_ms(step, units) == pytest.approx(expected, rel=1e-4)


def test_step_timer_takes_the_fastest_of_its_steps_after_the_first(model, monkeypatch) -> None:
    now, step, steps, logits = [0.0], EngineRows.step, [1.0, 9.0, 5.0, 7.0, 6.0], []

    def spy(rows, tokens):
        assert [row.columns for row in rows.rows] == [[40 + len(logits)] * model.units.num_layers] * 3
        assert {row.plan.share for row in rows.rows} == {model.units.fraction(1)}
        now[0] += steps[len(logits)] / 1000
        logits.append(step(rows, tokens))
        return logits[-1]

    monkeypatch.setattr(EngineRows, "step", spy)
    monkeypatch.setattr(step_timer, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    assert StepTimer(model)(Workload(3 * 40, 1, 0, rows=3)) == pytest.approx(5.0) and len(logits) == 5
    assert all(row.equal(one[0]) for one in logits for row in one), "rows of the same prompt"


def test_calibrate_of_a_noisy_device_has_a_smaller_spread_after_the_plan(model) -> None:
    """A slow spell lasts longer than a call, so the time up to the plan predicts most of what will slow the rest."""
    known, rng = KnownDevice(model), random.Random(3)

    def timer(workload):
        known.slower = math.exp(abs(rng.gauss(0, 0.3)))
        return known(workload)

    profile, _ = calibrate(model, 64, timer=timer)
    assert profile.spread > 1.3 > 1.1 > profile.rest_spread


@pytest.mark.parametrize(("seconds", "runs"), [(0.0, 2), (1e6, 6)])
def test_time_workloads_repeats_rounds_while_time_is_left(model, monkeypatch, seconds, runs) -> None:
    monkeypatch.setattr(measure, "MAX_SECONDS", seconds)
    known, timed = KnownDevice(model), []

    def timer(workload):
        timed.append(workload)
        known.slower = known.step = 1 + 1 / len(timed)  # each run is faster than the one before
        return known(workload)

    workloads = Design.of(model).draw(5)
    measured = time_workloads(workloads, timer)
    assert timed == workloads[:3] + runs * workloads, "a warm-up, then one round after the other"
    assert all(len(one.runs) == runs and one.fastest == one.runs[-1] for one in measured)
    assert measured[-1].inter_token_ms == known(workloads[-1]).inter_token_ms, "the fastest decode step is kept"


def test_calibrate_refuses_a_model_without_tunable_layers(model, monkeypatch) -> None:
    monkeypatch.setattr(model, "units", Units("L", 4, 4, 4, 1))
    with pytest.raises(OptionError, match=r"always runs all of its 4 layers \(num_prefix_layers\)"):
        calibrate(model, 16)


def test_timer_runs_the_workload(model, monkeypatch) -> None:
    reports, generate = [], model.generate

    def spy(*args, **kwargs):
        output = generate(*args, **kwargs)
        reports.append(output.report)
        return output

    monkeypatch.setattr(model, "generate", spy)
    timer, design = ModelTimer(model), dataclasses.replace(Design.of(model), late=True)
    workloads = design.draw(24)
    assert any(one.num_selected for one in workloads) and any(one.late_tokens for one in workloads)
    for workload in workloads:
        run = timer(workload)
        assert run.prefill.ttft_ms > run.prefill.to_plan_ms > 0 < run.inter_token_ms
        assert run.ran == workload
        assert reports[-1].prompt_tokens == workload.num_tokens
        assert (reports[-1].prefill_flops["vision_tower"] > 0) == (workload.num_images > 0)
        if workload.num_images:
            read = reports[-1].image_tokens
            assert (sum(read.front) < sum(read.all)) == bool(workload.num_selected)
            assert sum(read.front) - sum(read.late) == workload.num_tokens - workload.rest_tokens


@pytest.mark.parametrize(("layers", "prefix"), [(4, 3), (32, 31)])
def test_calibrate_of_a_model_with_one_tunable_layer_is_exact(model, monkeypatch, layers, prefix) -> None:
    monkeypatch.setattr(model, "units", Units("L", layers, prefix, 4, 1))
    profile, _ = calibrate(model, 24, timer=KnownDevice(model))
    assert profile.spread == pytest.approx(1) and profile.rest_spread == pytest.approx(1)


def test_merged_image_tokens_are_fitted_as_they_were_read(model) -> None:
    """Published -prumerge models: an image takes as many positions as it needs."""
    known = KnownDevice(model)

    def timer(workload):
        read = dataclasses.replace(workload, num_tokens=workload.num_tokens - 3 * workload.num_images)
        return known(read)

    profile, _ = calibrate(model, 64, timer=timer)
    assert profile.spread == pytest.approx(1) and all(errors["p95"] < 1e-6 for errors in profile.errors.values())
