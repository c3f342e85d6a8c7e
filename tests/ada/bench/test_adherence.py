"""The adherence benchmark: which budgets it draws, and how it counts what was met."""

import contextlib
import json

import psutil
import pytest
from fixtures.known_device import KnownDevice

from ada.bench import adherence
from ada.latency.design import Design
from ada.latency.measure import calibrate
from ada.latency.ttft_predictor import TTFTPredictor


def test_measure_on_a_known_device_meets_reachable_budgets(model) -> None:
    """On a device whose times are known: quiet it keeps every budget; slower, it sees that before it has decided."""
    known = KnownDevice(model)
    profile, _ = calibrate(model, 64, timer=known)
    latency = TTFTPredictor(profile, model.units)
    known.step = 1.5
    points = Design.of(model).draw(60)
    kept, slower = adherence.measure(model, points, latency, known, busy_from=60)
    assert slower == 1 and not kept["fixed"], "quiet, a request runs once"
    errors = adherence.request_errors(kept)
    assert errors["prefill"]["p95"] == pytest.approx(0, abs=1e-6) and errors["decode"]["median"] == pytest.approx(0.5)
    quiet = adherence.report(kept)
    assert quiet["quiet"]["met"] == 1 and quiet["busy, corrected"]["met"] is None
    assert 0.5 < quiet["quiet"]["used"] <= 1
    assert quiet["quiet"]["planned"] == pytest.approx(quiet["quiet"]["used"]), "times never vary"
    known.slower = 1.3
    kept, _ = adherence.measure(model, points, latency, known, busy_from=60)
    assert adherence.request_errors(kept)["prefill"]["median"] == pytest.approx(0.3)
    reachable = [one for one in kept["corrected"] if one.predicted_ms <= one.budget_ms]
    assert len(reachable) > 20 and all(one.met for one in reachable), "from the first on"


def test_measure_scales_budgets_on_a_busy_device(model, monkeypatch) -> None:
    """Three times slower from half-way on: budgets grow with it, so that the correction can keep them."""
    known = KnownDevice(model)
    profile, _ = calibrate(model, 64, timer=known)

    @contextlib.contextmanager
    def load():
        known.slower = 3.0
        yield

    monkeypatch.setattr(adherence, "one_core_busy", load)
    latency = TTFTPredictor(profile, model.units)
    assert adherence.slowdown(latency, Design.of(model).draw(9), known) == pytest.approx(1)
    learnt, observe = [], latency.observe
    monkeypatch.setattr(latency, "observe", lambda *times: (learnt.append(times), observe(*times)))
    kept, slower = adherence.measure(model, Design.of(model).draw(200), latency, known, busy_from=100)
    assert len(learnt) == 200, "from its own requests, and not from what the load was probed with"
    told = adherence.report(kept)
    assert slower == pytest.approx(3) and adherence.request_errors({"corrected": []}) is None
    corrected, fixed = told["busy, corrected"], told["busy, fixed"]
    assert told["quiet"]["requests"] == 100 and corrected["requests"] == fixed["requests"] == 80
    assert corrected["met"] > 0.85 > fixed["met"]


def test_summary_counts_a_late_answer_as_all_of_its_budget() -> None:
    late, early = (
        adherence.RequestOutcome(100, 90, 300, False),
        adherence.RequestOutcome(100, 90, 60, False),
    )
    told = adherence.summary([late, early])
    assert (told["met"], told["planned"], told["used"]) == (0.5, 0.9, 0.8)


def test_one_core_busy_computes_inside_and_ends_after() -> None:
    me = psutil.Process()
    with adherence.one_core_busy():
        (burning,) = me.children()
        before = burning.cpu_times().user
        time.sleep(1)
        assert burning.cpu_times().user > before
    assert not burning.is_running()


@pytest.mark.parametrize(
    "flags", [["--requests", "0"], ["--points", "3"], ["--busy-from", "-1"], ["--model-path", "x", "--random-1b"]]
)
def test_adherence_refuses_bad_flags(flags, capsys) -> None:
    assert adherence.main(flags) == 2 and flags[0] in capsys.readouterr().err


def test_adherence_program_prints_json(adaptive_checkpoint, monkeypatch, capsys) -> None:
    monkeypatch.setattr(adherence, "LEAST_TOKENS", 32)
    flags = ["--model-path", str(adaptive_checkpoint), "--requests", "4", "--points", "16"]
    assert adherence.main(flags) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(told) == {"model", "threads", "H"} and told["H"]["quiet"]["requests"] == 4
    for name in ("held_out", "request_errors"):
        assert all(told["H"][name][phase]["p95"] >= 0 for phase in ("prefill", "decode"))


def test_adherence_program_runs_both_kinds_of_random_weights(monkeypatch, capsys) -> None:
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 8}
    small |= {"num_key_value_heads": 8, "vocab_size": 60, "max_position_embeddings": 128}
    monkeypatch.setattr(adherence, "BILLION", small)
    assert adherence.main(["--random-1b", "--requests", "2", "--points", "16"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["model"] == "random, 1B" and {"H", "L"} <= set(told)
    shortest, longest = told["L"]["lengths"]
    assert told["L"]["quiet"]["requests"] == 2 and 64 <= shortest <= longest <= 128
