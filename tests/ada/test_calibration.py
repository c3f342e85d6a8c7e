"""Budgets in milliseconds: the fit, the choice of units, the correction, the stored profile, the programs."""

import contextlib
import dataclasses
import json
import math
import os
import random
import subprocess
import sys
import time

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ada import bench_adherence
from ada.budget import LatencyBudget, TimeBudget, read_budget
from ada.calibrate import main as calibrate_main
from ada.calibration import ready
from ada.calibration.device_latency import BOUNDS, WINDOW, DeviceLatency
from ada.calibration.latency_model import Point, decode_terms, fit, predict, prefill_terms
from ada.calibration.measure import calibrate, draw_points, time_points, timer_of
from ada.calibration.profile import Profile, Surroundings, load_profile
from ada.units import Units
from llava.errors import OptionError
from llava.model.builder import load_pretrained_model

H7B = Units("H", 32, 16, 32, 8)
L7B = Units("L", 32, 16, 32, 8)
HERE = Surroundings("{}", "cpu", "float32", 2, "2", "5")
PREFILL, DECODE = [5.0, 20.0, 0.1, 0.5, 40.0, 0.9, 1e-4, 30.0], [1.0, 0.2, 60.0, 1e-3, 2.0]
PROFILE = Profile(HERE, "2026-01-01", PREFILL, DECODE, 1.1, {})


@pytest.fixture
def model(adaptive_checkpoint):
    return load_pretrained_model(str(adaptive_checkpoint), None, "tiny", device="cpu")[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("850ms", 850.0), ("1.2s", 1200.0), (" 12.5 ms ", 12.5), ("0.5", None), ("50%", None), (0.5, None)],
)
def test_budgets_are_shares_or_times(text, expected) -> None:
    assert read_budget(text) == (LatencyBudget(0.5) if expected is None else TimeBudget(expected))
    assert read_budget(str(read_budget(text))) == read_budget(text), "it is written as it is read"


@pytest.mark.parametrize("text", ["0ms", "-5ms", "3 parsecs", "ms", "1.2.3s", "nanms", "", "fast", "1.5"])
def test_what_is_neither_is_refused(text) -> None:
    with pytest.raises(OptionError, match=r"--latency-budget is .*850ms or 1\.2s"):
        read_budget(text)


def points_of(units: Units, count: int) -> list[Point]:
    chance = random.Random(1)
    draw = chance.randint
    return [Point(draw(32, 1024), draw(0, units.tunable), draw(0, 1)) for _ in range(count)]


def test_the_fit_finds_what_the_times_were_made_of() -> None:
    points = points_of(H7B, 60)
    rows = [prefill_terms(point, H7B) for point in points]
    assert fit(rows, [predict(PREFILL, row) for row in rows]) == pytest.approx(PREFILL, rel=1e-6)
    steps = [decode_terms(point, H7B) for point in points]
    assert fit(steps, [predict(DECODE, row) for row in steps]) == pytest.approx(DECODE, rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 0.3))
def test_no_coefficient_is_negative_whatever_the_noise(seed, noise) -> None:
    chance = random.Random(seed)
    rows = [prefill_terms(point, L7B) for point in points_of(L7B, 24)]
    times = [predict(PREFILL, row) * math.exp(chance.gauss(0, noise)) for row in rows]
    found = fit(rows, times)
    assert min(found) >= 0
    errors = sorted(abs(predict(found, row) / ms - 1) for row, ms in zip(rows, times, strict=True))
    assert errors[len(errors) // 2] < 3 * noise


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([H7B, L7B]), st.floats(1, 3000), st.integers(32, 2000), st.integers(0, 1))
def test_the_most_units_that_fit(units, ms, tokens, pictures) -> None:
    latency = DeviceLatency(PROFILE, units)

    def p95(n):
        return latency.first_token_ms(Point(tokens, n, pictures))

    granted = latency.units_within(ms, tokens, pictures)
    assert granted == max((n for n in range(units.tunable + 1) if p95(n) <= ms), default=0)


def test_the_correction_follows_the_device_within_bounds() -> None:
    latency, chance = DeviceLatency(PROFILE, H7B), random.Random(0)
    point = Point(640, 20, 1)
    middle = predict(PREFILL, prefill_terms(point, H7B))

    def answer(slower: float) -> bool:
        said = latency.first_token_ms(point)
        measured = middle * slower * math.exp(chance.gauss(0, 0.05))
        latency.observe(middle, measured)
        return measured <= said

    kept = [answer(1.0) for _ in range(2000)]
    assert 0.94 < sum(kept) / len(kept) < 0.98, "a little over 95 % are below the predicted p95"
    kept = [answer(2.0) for _ in range(2000)]
    assert sum(kept[20:100]) >= 0.85 * 80, "a busy device is learnt within twenty answers"
    kept, factors = zip(*((answer(1.0), latency.factor) for _ in range(2 * WINDOW)), strict=True)
    assert all(kept[: WINDOW - 2]) and factors[-1] < 1.3 < factors[0], "what the busy spell taught is forgotten"
    for slower, bound in ((1e6, BOUNDS[1]), (1e-6, BOUNDS[0])):
        for _ in range(3000):
            answer(slower)
        assert latency.factor == pytest.approx(bound * PROFILE.spread)
    latency.reset()
    assert latency.factor == PROFILE.spread


def test_a_profile_is_read_as_it_was_written(tmp_path) -> None:
    path = tmp_path / "new" / "profile.json"
    PROFILE.save(path)
    assert load_profile(path, HERE) == PROFILE
    assert [file.name for file in path.parent.iterdir()] == ["profile.json"], "nothing half-written is left"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threads": 8}, "another threads: 2, and this is 8"),
        ({"torch": "3"}, "another torch: 2, and this is 3"),
        ({"device": "cuda"}, "another device: cpu, and this is cuda"),
    ],
)
def test_a_profile_of_other_surroundings_is_refused(tmp_path, change, message) -> None:
    path = tmp_path / "profile.json"
    PROFILE.save(path)
    with pytest.raises(OptionError, match=message + r".*python -m ada\.calibrate"):
        load_profile(path, dataclasses.replace(HERE, **change))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", json.dumps({**dataclasses.asdict(PROFILE), "version": 0})])
def test_what_is_no_profile_is_refused(tmp_path, text) -> None:
    path = tmp_path / "profile.json"
    path.write_text(text)
    with pytest.raises(OptionError, match=r"profile\.json.*python -m ada\.calibrate"):
        load_profile(path, HERE)


def fake_timer(units: Units):
    def run(point, budget=None):
        return predict(PREFILL, prefill_terms(point, units)), predict(DECODE, decode_terms(point, units))

    return run


def test_a_calibration_of_a_device_whose_times_are_known(model) -> None:
    profile, held_out = calibrate(model, 64, timer=fake_timer(model.units))
    assert len(held_out) == 16 and profile.surroundings == Surroundings.of(model)
    assert profile.spread == pytest.approx(1)
    assert all(errors["p95"] < 1e-6 for errors in profile.errors.values())


def test_the_real_timer_runs_what_a_point_says(model, monkeypatch) -> None:
    from ada.model import AdaLlavaCausalLM

    seen, describe = [], AdaLlavaCausalLM._describe

    def spy(self, output, *rest):
        describe(self, output, *rest)
        seen.append(output.report)

    monkeypatch.setattr(AdaLlavaCausalLM, "_describe", spy)
    generate = type(model).generate
    monkeypatch.setattr(
        type(model), "generate", lambda self, *a, **k: generate(self, *a, **k, return_dict_in_generate=True)
    )
    points = draw_points(model, 8)
    timed = time_points(points, timer_of(model), runs=1)
    assert all(t.first_ms[0] > 0 < t.token_ms for t in timed)
    for point, ran in zip(points, seen[3:], strict=True):
        assert ran.prompt_tokens == point.tokens and ran.granted == model.units.fraction(point.tunable)
        assert (ran.prefill_flops["vision_tower"] > 0) == (point.pictures > 0)


def test_generate_under_a_time(model, ids=((1, 5, 6, 7),)) -> None:
    import torch

    prompt = torch.tensor(ids)
    with pytest.raises(OptionError, match=r"850ms.*python -m ada\.calibrate"):
        model.generate(prompt, latency_budget="850ms", max_new_tokens=2)
    model.latency = DeviceLatency(PROFILE, model.units)
    tokens = len(ids[0]) + 1
    ends = [model.latency.first_token_ms(Point(tokens, n, 0)) for n in range(model.units.tunable + 1)]
    options = {"max_new_tokens": 2, "return_dict_in_generate": True}
    for ms in (ends[0] + 1, sorted(ends)[2] + 0.1, max(ends) + 50):
        out = model.generate(prompt, latency_budget=TimeBudget(ms), **options)
        most = max(n for n, end in enumerate(ends) if end <= ms)
        assert out.report.granted == model.units.fraction(most) and out.report.budget_met
        assert out.report.predicted_ms == pytest.approx(ends[most]) and "predicted" in out.report.summary()
    out = model.generate(prompt, latency_budget="1ms", **options)
    assert not out.report.budget_met and f"{ends[0]:.4g} ms is the least here" in out.report.summary()
    with pytest.raises(OptionError, match=f"1ms.*takes {ends[0]:.4g} ms at the least"):
        model.generate(prompt, latency_budget="1ms", strict_latency_budget=True, **options)


def ask(root, checkpoint, picture, cache, *flags):
    command = [sys.executable, "-m", "llava.eval.run_llava", "--model-path", str(checkpoint), "--query", "w5"]
    command += ["--report", "json", "--image-file", str(picture), "--max_new_tokens", "3", "--device", "cpu", *flags]
    env = {**os.environ, "XDG_CACHE_HOME": str(cache), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)


def test_a_program_calibrates_once_or_refuses(root, adaptive_checkpoint, picture, tmp_path) -> None:
    refused = ask(root, adaptive_checkpoint, picture, tmp_path, "--latency-budget", "9s", "--no-auto-calibrate")
    assert refused.returncode == 2 and "there is no calibration" in refused.stderr, refused.stderr
    assert "python -m ada.calibrate" in refused.stderr and not list(tmp_path.rglob("*.json"))
    first = ask(root, adaptive_checkpoint, picture, tmp_path, "--latency-budget", "9s")
    assert first.returncode == 0 and "A short calibration runs first" in first.stderr, first.stderr
    assert len(list(tmp_path.rglob("*.json"))) == 1
    again = ask(root, adaptive_checkpoint, picture, tmp_path, "--latency-budget", "9s", "--no-auto-calibrate")
    assert again.returncode == 0 and "calibration" not in again.stderr, again.stderr
    facts = json.loads(again.stdout.splitlines()[-1])
    assert facts["requested_ms"] == 9000 and facts["granted"] == 1 and 0 < facts["predicted_ms"] <= 9000


def test_the_program_that_calibrates(model, adaptive_checkpoint, monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    plot = tmp_path / "plot.png"
    flags = ["--model-path", str(adaptive_checkpoint), "--device", "cpu", "--plot", str(plot)]
    assert calibrate_main([*flags, "--points", "16"]) == 0
    shown = capsys.readouterr().out
    assert "prefill: error median" in shown and "attention" in shown
    assert plot.stat().st_size > 5000 and Surroundings.of(model).path.exists()
    assert ready.stored_latency(model).profile.date
    assert calibrate_main([*flags, "--points", "3"]) == 2


def test_adherence_counts_what_was_met(model) -> None:
    """On a device whose times are known: quiet it keeps every budget; twice as slow, the correction learns it."""
    profile, _ = calibrate(model, 64, timer=fake_timer(model.units))
    latency = DeviceLatency(profile, model.units)
    slow = {"by": 1.0}

    def timer(point, budget=None):
        n = model.latency.units_within(budget.milliseconds, point.tokens, point.pictures)
        ran = dataclasses.replace(point, tunable=n)
        step = 1.5 * predict(DECODE, decode_terms(ran, model.units))
        return slow["by"] * predict(PREFILL, prefill_terms(ran, model.units)), step

    points = draw_points(model, 60)
    kept, slower = bench_adherence.measure(model, points, latency, timer, busy_from=60)
    assert slower == 1 and not kept["fixed"], "quiet, a request runs once"
    errors = bench_adherence.request_errors(kept)
    assert errors["prefill"]["p95"] == pytest.approx(0, abs=1e-6) and errors["decode"]["median"] == pytest.approx(0.5)
    quiet = bench_adherence.report(kept)
    assert quiet["quiet"]["met"] == 1 and quiet["busy, corrected"]["met"] is None
    assert 0.5 < quiet["quiet"]["used"] <= 1
    assert quiet["quiet"]["planned"] == pytest.approx(quiet["quiet"]["used"]), "times never vary"
    slow["by"] = 1.3
    kept, _ = bench_adherence.measure(model, points, latency, timer, busy_from=60)
    assert bench_adherence.request_errors(kept)["prefill"]["median"] == pytest.approx(0.3)


def test_a_busy_device_is_asked_for_what_it_can_reach(model, monkeypatch) -> None:
    """Three times slower from half-way on: budgets grow with it, so that the correction can keep them."""
    profile, _ = calibrate(model, 64, timer=fake_timer(model.units))
    slow = {"by": 1.0}

    def timer(point, budget=None):
        if budget is not None:
            n = model.latency.units_within(budget.milliseconds, point.tokens, point.pictures)
            point = dataclasses.replace(point, tunable=n)
        return slow["by"] * predict(PREFILL, prefill_terms(point, model.units)), 1.0

    @contextlib.contextmanager
    def load():
        slow["by"] = 3.0
        yield

    monkeypatch.setattr(bench_adherence, "one_core_busy", load)
    latency = DeviceLatency(profile, model.units)
    assert bench_adherence.slowdown(latency, draw_points(model, 9), timer) == pytest.approx(1)
    kept, slower = bench_adherence.measure(model, draw_points(model, 200), latency, timer, busy_from=100)
    told = bench_adherence.report(kept)
    assert slower == pytest.approx(3) and bench_adherence.request_errors({"corrected": []}) is None
    corrected, fixed = told["busy, corrected"], told["busy, fixed"]
    assert told["quiet"]["requests"] == 100 and corrected["requests"] == fixed["requests"] == 80
    assert corrected["met"] > 0.85 > fixed["met"]


def test_points_with_a_picture_end_where_prompts_are_cut_off(model, monkeypatch) -> None:
    monkeypatch.setattr(model.config, "tokenizer_model_max_length", 100, raising=False)
    points = draw_points(model, 200)
    assert 90 < max(point.tokens for point in points if point.pictures) <= 101
    assert max(point.tokens for point in points if not point.pictures) > 150


def test_requests_reach_the_lengths_that_are_promised(model, monkeypatch) -> None:
    """As the bundled models are: 1,024 positions, and prompts with pictures cut off at 512."""
    monkeypatch.setattr(model.config, "max_position_embeddings", 1024)
    monkeypatch.setattr(model.config, "tokenizer_model_max_length", 512, raising=False)
    points = draw_points(model, 2000, least_tokens=bench_adherence.LEAST_TOKENS)
    words, pictures = ([p.tokens for p in points if p.pictures == count] for count in (0, 1))
    assert min(words) == 64 and 1020 <= max(words) <= 1024 and min(pictures) >= 64 and 500 < max(pictures) <= 513


def test_a_late_answer_uses_no_more_than_its_budget() -> None:
    late, early = bench_adherence.Kept(100, 90, 300, False), bench_adherence.Kept(100, 90, 60, False)
    told = bench_adherence.summary([late, early])
    assert (told["met"], told["planned"], told["used"]) == (0.5, 0.9, 0.8)


def test_the_load_is_there_when_it_is_entered_and_goes() -> None:
    me = psutil.Process()
    with bench_adherence.one_core_busy():
        (burning,) = me.children()
        before = burning.cpu_times().user
        time.sleep(1)
        assert burning.cpu_times().user > before
    assert not burning.is_running()


@pytest.mark.parametrize(
    "flags", [["--requests", "0"], ["--points", "3"], ["--busy-from", "-1"], ["--model-path", "x", "--random-1b"]]
)
def test_adherence_refuses(flags, capsys) -> None:
    assert bench_adherence.main(flags) == 2 and flags[0] in capsys.readouterr().err


def test_the_program_that_measures_adherence(adaptive_checkpoint, monkeypatch, capsys) -> None:
    monkeypatch.setattr(bench_adherence, "LEAST_TOKENS", 32)
    flags = ["--model-path", str(adaptive_checkpoint), "--requests", "4", "--points", "16"]
    assert bench_adherence.main(flags) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(told) == {"model", "threads", "H"} and told["H"]["quiet"]["requests"] == 4
    for name in ("held_out", "request_errors"):
        assert all(told["H"][name][phase]["p95"] >= 0 for phase in ("prefill", "decode"))


def test_adherence_of_both_kinds_with_random_weights(monkeypatch, capsys) -> None:
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 8}
    small |= {"num_key_value_heads": 8, "vocab_size": 60, "max_position_embeddings": 128}
    monkeypatch.setattr(bench_adherence, "BILLION", small)
    assert bench_adherence.main(["--random-1b", "--requests", "2", "--points", "16"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["model"] == "random, 1B" and {"H", "L"} <= set(told)
    shortest, longest = told["L"]["lengths"]
    assert told["L"]["quiet"]["requests"] == 2 and 64 <= shortest <= longest <= 128


def test_quantised_weights_have_a_profile_of_their_own(model, monkeypatch) -> None:
    whole = Surroundings.of(model)
    monkeypatch.setattr(model, "is_loaded_in_4bit", True, raising=False)
    four = Surroundings.of(model)
    assert whole.model != four.model and whole.path != four.path
    assert dataclasses.replace(whole, threads=7).path != whole.path


def test_times_hold_for_one_question_at_a_time(model) -> None:
    from ada.overlay import prepare_model

    with pytest.raises(OptionError, match="--batch-size is 4 and --latency-budget 850ms"):
        prepare_model(model, {"latency_budget": "850ms", "batch_size": 4})


def test_replies_say_what_was_measured(model) -> None:
    import torch

    from ada.overlay import describe_generation

    model.latency = DeviceLatency(PROFILE, model.units)
    out = model.generate(torch.tensor([[1, 5, 6]]), latency_budget="9s", max_new_tokens=2, return_dict_in_generate=True)
    facts = describe_generation(model, out, {"time_to_first_token_ms": 12.5})
    assert facts["measured_ms"] == 12.5 and facts["requested_ms"] == 9000 and facts["granted"] == 1
    assert "predicted" in facts["summary"] and facts["summary"].endswith("measured 12.5 ms")
    for _ in range(WINDOW):
        describe_generation(model, out, {"time_to_first_token_ms": 0.9 * facts["expected_ms"]})
    assert model.latency.factor == pytest.approx(0.9), "the correction has seen them"
