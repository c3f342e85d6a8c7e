"""The adherence benchmark: which budgets it draws, and how it counts what was met."""

import contextlib
import json

import psutil
import pytest
from fixtures.known_device import KnownDevice

from ada.bench import adherence, models
from ada.bench.__main__ import main
from ada.latency.design import Design
from ada.latency.measure import calibrate
from ada.latency.ttft_predictor import TTFTPredictor


def test_measure_on_a_known_device_meets_reachable_budgets(model) -> None:
    """Quiet, every budget is kept; on a slower device the plan is made with that in view."""
    known = KnownDevice(model)
    profile, _ = calibrate(model, 64, timer=known)
    latency = TTFTPredictor(profile, model.units)
    known.step = 1.5
    workloads = Design.of(model).draw(60)
    kept, slower = adherence.measure(model.units, workloads, latency, known, busy_from=60)
    assert slower == 1 and not kept["fixed"], "quiet, a request runs once"
    errors = adherence.request_errors(kept)
    assert errors["prefill"]["p95"] == pytest.approx(0, abs=1e-6) and errors["decode"]["median"] == pytest.approx(0.5)
    quiet = adherence.report(kept)
    assert quiet["quiet"]["met"] == 1 and quiet["busy, corrected"]["met"] is None
    assert 0.5 < quiet["quiet"]["used"] <= 1
    assert quiet["quiet"]["planned"] == pytest.approx(quiet["quiet"]["used"]), "times never vary"
    known.slower = 1.3
    kept, _ = adherence.measure(model.units, workloads, latency, known, busy_from=60)
    assert adherence.request_errors(kept)["prefill"]["median"] == pytest.approx(0.3)
    reachable = [one for one in kept["corrected"] if one.predicted_ms <= one.budget_ms]
    assert len(reachable) > 20 and all(one.met for one in reachable), "from the first on"


def test_measure_scales_budgets_on_a_busy_device(model, monkeypatch) -> None:
    """Three times slower from the middle on: budgets grow with it, so that the correction can keep them."""
    known = KnownDevice(model)
    profile, _ = calibrate(model, 64, timer=known)

    @contextlib.contextmanager
    def load():
        known.slower = 3.0
        yield

    monkeypatch.setattr(adherence, "one_core_busy", load)
    latency = TTFTPredictor(profile, model.units)
    assert adherence.slowdown(latency, Design.of(model).draw(9), known) == pytest.approx(1)
    observed, observe = [], latency.observe
    monkeypatch.setattr(latency, "observe", lambda *times: (observed.append(times), observe(*times)))
    kept, slower = adherence.measure(model.units, Design.of(model).draw(200), latency, known, busy_from=100)
    assert len(observed) == 200, "its own requests correct it, the probes of the load do not"
    figures = adherence.report(kept)
    assert slower == pytest.approx(3) and adherence.request_errors({"corrected": []}) is None
    corrected, fixed = figures["busy, corrected"], figures["busy, fixed"]
    assert figures["quiet"]["requests"] == 100 and corrected["requests"] == fixed["requests"] == 80
    assert corrected["met"] > 0.85 > fixed["met"]


def test_summary_counts_a_late_answer_as_all_of_its_budget() -> None:
    late, early = adherence.RequestOutcome(100, 90, 300, False), adherence.RequestOutcome(100, 90, 60, False)
    figures = adherence.summary([late, early])
    assert (figures["met"], figures["planned"], figures["used"]) == (0.5, 0.9, 0.8)


def test_one_core_busy_computes_inside_and_ends_after() -> None:
    before = {child.pid for child in psutil.Process().children()}
    with adherence.one_core_busy():
        (load,) = (child for child in psutil.Process().children() if child.pid not in before)
        assert load.status() == psutil.STATUS_RUNNING, "it computes, and does not wait for anything"
    assert not load.is_running()


@pytest.mark.parametrize(
    "flags", [["--requests", "0"], ["--points", "3"], ["--busy-from", "-1"], ["--model-path", "x", "--random-1b"]]
)
def test_adherence_refuses_bad_flags(flags, capsys) -> None:
    assert main(["adherence", *flags]) == 2 and flags[0] in capsys.readouterr().err


def test_adherence_program_prints_json(adaptive_checkpoint, monkeypatch, capsys) -> None:
    monkeypatch.setattr(adherence, "MIN_TOKENS", 32)
    flags = ["--model-path", str(adaptive_checkpoint), "--requests", "4", "--points", "16"]
    assert main(["adherence", *flags]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(figures) == {"model", "threads", "H"} and figures["H"]["quiet"]["requests"] == 4
    for name in ("held_out", "request_errors"):
        assert all(figures["H"][name][phase]["p95"] >= 0 for phase in ("prefill", "decode"))


def test_adherence_program_runs_both_kinds_of_random_weights(monkeypatch, capsys) -> None:
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 8}
    small |= {"num_key_value_heads": 8, "vocab_size": 60, "max_position_embeddings": 128}
    monkeypatch.setattr(models, "SHAPES_1B", small)
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    monkeypatch.setattr(models, "CLIP_L_336", vision | {"image_size": 16, "patch_size": 4})
    assert main(["adherence", "--random-1b", "--requests", "2", "--points", "16"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["model"] == "random, 1B" and {"H", "L"} <= set(figures)
    shortest, longest = figures["L"]["lengths"]
    assert figures["L"]["quiet"]["requests"] == 2 and 64 <= shortest <= longest <= 128


def test_adherence_under_auto_reaches_lower_budgets(adaptive_checkpoint, monkeypatch, capsys) -> None:
    monkeypatch.setattr(adherence, "MIN_TOKENS", 32)
    flags = ["--model-path", str(adaptive_checkpoint), "--requests", "6", "--points", "16", "--image-tokens", "auto"]
    asked, timer = [], adherence.ModelTimer

    def spy(*given, **options):
        asked.append(options)
        return timer(*given, **options)

    monkeypatch.setattr(adherence, "ModelTimer", spy)
    assert main(["adherence", *flags]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["H"]["quiet"]["requests"] == 6 and figures["H"]["reach"] >= 1
    assert asked[-1]["auto"] is True
