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
from types import SimpleNamespace

import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import StoppingCriteriaList

from ada.bench import adherence as bench_adherence
from ada.budget import LatencyBudget, TimeBudget, read_budget
from ada.latency import measure, ready
from ada.latency.calibrate import main as calibrate_main
from ada.latency.device_profile import DeviceFingerprint, Profile, load_profile
from ada.latency.latency_model import (
    Elapsed,
    PrefillTiming,
    Workload,
    decode_terms,
    fit,
    plan_terms,
    predict,
    rest_terms,
)
from ada.latency.measure import RunTiming, calibrate, draw_points, time_points, timer_of
from ada.latency.ttft_predictor import BOUNDS, WINDOW, TTFTPredictor
from ada.scheduling.units import Units
from llava.constants import IGNORE_INDEX
from llava.errors import OptionError
from llava.generation import TokenClock
from llava.model.builder import load_pretrained_model

H7B = Units("H", 32, 16, 32, 8)
L7B = Units("L", 32, 16, 32, 8)
HERE = DeviceFingerprint("{}", "cpu", "float32", 2, "2", "5")
PLAN, REST = [5.0, 20.0, 0.3, 5e-5], [2.0, 0.1, 0.5, 40.0, 0.9, 1e-4, 30.0]
DECODE = [1.0, 0.2, 60.0, 1e-3, 2.0]
RETURN = {"return_dict_in_generate": True}
PROFILE = Profile(HERE, "2026-01-01", PLAN, REST, DECODE, 1.1, 1.05, {})


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


def rest_of(units: Units):
    return lambda point: rest_terms(point, units)


def expected(point: Workload, units: Units) -> PrefillTiming:
    plan = predict(PLAN, plan_terms(point))
    return PrefillTiming(plan, plan + predict(REST, rest_terms(point, units)))


def points_of(units: Units, count: int) -> list[Workload]:
    chance = random.Random(1)
    draw = chance.randint
    return [Workload(draw(32, 1024), draw(0, units.tunable), draw(0, 1)) for _ in range(count)]


def test_the_fit_finds_what_the_times_were_made_of() -> None:
    points = points_of(H7B, 60)
    for known, terms in ((PLAN, plan_terms), (REST, rest_of(H7B)), (DECODE, lambda point: decode_terms(point, H7B))):
        rows = [terms(point) for point in points]
        assert fit(rows, [predict(known, row) for row in rows]) == pytest.approx(known, rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 0.3))
def test_no_coefficient_is_negative_whatever_the_noise(seed, noise) -> None:
    chance = random.Random(seed)
    rows = [rest_terms(point, L7B) for point in points_of(L7B, 24)]
    times = [predict(REST, row) * math.exp(chance.gauss(0, noise)) for row in rows]
    found = fit(rows, times)
    assert min(found) >= 0
    errors = sorted(abs(predict(found, row) / ms - 1) for row, ms in zip(rows, times, strict=True))
    assert errors[len(errors) // 2] < 3 * noise


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([H7B, L7B]),
    st.floats(1, 3000),
    st.integers(32, 2000),
    st.integers(0, 1),
    st.builds(Elapsed, st.floats(0, 300), st.none() | st.floats(1, 3000)),
)
def test_the_most_units_that_fit(units, ms, tokens, pictures, gone) -> None:
    latency = TTFTPredictor(PROFILE, units)

    def p95(n):
        return latency.first_token_ms(Workload(tokens, n, pictures), gone)

    granted = latency.units_within(ms, tokens, pictures, gone)
    assert granted == max((n for n in range(units.tunable + 1) if p95(n) <= ms), default=0)


@settings(max_examples=100, deadline=None)
@given(st.floats(0.2, 20), st.integers(0, 16), st.integers(32, 2000))
def test_what_has_gone_by_tells_how_fast_the_device_is(slower, layers, tokens) -> None:
    latency, point = TTFTPredictor(PROFILE, L7B), Workload(tokens, layers, 1)
    plan, first = expected(point, L7B)
    rest = PROFILE.rest_spread * (first - plan)
    assert latency.first_token_ms(point, Elapsed(9, slower * plan)) == pytest.approx(9 + slower * (plan + rest))
    assert latency.first_token_ms(point, Elapsed(9)) == pytest.approx(9 + PROFILE.spread * first)
    assert latency.first_token_ms(point) == pytest.approx(PROFILE.spread * first), "and before the call, earlier ones"


def test_the_corrections_follow_the_device_within_bounds() -> None:
    latency, chance = TTFTPredictor(PROFILE, H7B), random.Random(0)
    point = Workload(640, 20, 1)
    plan, first = expected(point, H7B)

    def answer(slower: float, behind: float = 1.0) -> tuple[bool, bool]:
        """Whether the first token came by what was predicted before the call, and as the plan was made."""
        before = latency.first_token_ms(point)
        gone = plan * slower
        then = latency.first_token_ms(point, Elapsed(0, gone))
        measured = gone + (first - plan) * slower * behind * math.exp(chance.gauss(0, 0.05))
        latency.observe(expected(point, H7B), PrefillTiming(gone, measured))
        return measured <= before, measured <= then

    for kept in zip(*(answer(1.0) for _ in range(2000)), strict=True):
        assert 0.94 < sum(kept) / len(kept) < 0.98, "a little over 95 % are below the predicted p95"
    before, then = zip(*(answer(2.0) for _ in range(2000)), strict=True)
    assert not any(before[:2]) and sum(before[20:100]) >= 0.85 * 80, "a busy device is learnt within twenty answers"
    assert sum(then[:20]) >= 17, "but the first of them sees it"
    kept, factors = zip(*((answer(1.0)[0], latency.factor) for _ in range(2 * WINDOW)), strict=True)
    assert all(kept[: WINDOW - 2]) and factors[-1] < 1.3 < factors[0], "what the busy spell taught is forgotten"
    then = [answer(1.0, behind=1.5)[1] for _ in range(200)]
    assert not any(then[:2]) and sum(then[20:]) >= 0.9 * 180, "what slows the rest alone is learnt as well"
    for slower, behind, bound in ((1e6, 1.0, BOUNDS[1]), (1e-6, 1.0, BOUNDS[0]), (1.0, 1e6, None), (1.0, 1e-6, None)):
        for _ in range(WINDOW):
            answer(slower, behind)
        if bound is not None:
            assert latency.factor == pytest.approx(bound * PROFILE.spread)
        else:
            bound = BOUNDS[behind > 1]
            rest = latency.first_token_ms(point, Elapsed(0, plan)) - plan
            assert rest == pytest.approx(bound * PROFILE.rest_spread * (first - plan))
    latency.reset()
    assert latency.factor == PROFILE.spread
    assert latency.first_token_ms(point, Elapsed(0, plan)) == pytest.approx(plan + PROFILE.rest_spread * (first - plan))


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


class Known:
    """A device whose times are known: a timer that grants as ``generate`` does, and teaches as it does."""

    def __init__(self, model) -> None:
        self.model, self.slower, self.step = model, 1.0, 1.0

    def __call__(self, point: Workload, budget: TimeBudget | None = None) -> RunTiming:
        latency, units, said = self.model.latency, self.model.units, None
        if budget is not None:
            gone = Elapsed(0, self.slower * expected(point, units).to_plan_ms)
            most = latency.units_within(budget.milliseconds, point.num_tokens, point.num_images, gone)
            point = dataclasses.replace(point, num_units=most)
            said = latency.first_token_ms(point, gone)
        times = PrefillTiming(*(self.slower * ms for ms in expected(point, units)))
        if latency is not None:
            latency.observe(latency.expected(point), times)
        return RunTiming(times, self.step * predict(DECODE, decode_terms(point, units)), point.num_units, said)


def test_a_calibration_of_a_device_whose_times_are_known(model) -> None:
    profile, held_out = calibrate(model, 64, timer=Known(model))
    assert len(held_out) == 16 and profile.surroundings == DeviceFingerprint.of(model)
    assert profile.spread == pytest.approx(1) and profile.rest_spread == pytest.approx(1)
    assert all(errors["p95"] < 1e-6 for errors in profile.errors.values())


def test_a_noisy_device_has_a_spread_and_a_smaller_one_behind_the_plan(model) -> None:
    """Slow spells last longer than a call, so that the time up to the plan tells most of what will slow the rest."""
    known, chance = Known(model), random.Random(3)

    def timer(point):
        known.slower = math.exp(abs(chance.gauss(0, 0.3)))
        return known(point)

    profile, _ = calibrate(model, 64, timer=timer)
    assert profile.spread > 1.3 > 1.1 > profile.rest_spread


@pytest.mark.parametrize(("seconds", "runs"), [(0.0, 2), (1e6, 6)])
def test_points_run_again_as_long_as_that_is_soon_done(model, monkeypatch, seconds, runs) -> None:
    monkeypatch.setattr(measure, "SECONDS", seconds)
    known, asked = Known(model), []

    def timer(point):
        asked.append(point)
        known.slower = known.step = 1 + 1 / len(asked)
        return known(point)

    points = draw_points(model, 5)
    timed = time_points(points, timer)
    assert asked == points[:3] + runs * points, "one round after the other"
    assert all(len(t.runs) == runs and t.fastest == t.runs[-1] for t in timed)
    assert timed[-1].inter_token_ms == known(points[-1]).inter_token_ms, "the last was the fastest"


def test_a_model_that_always_runs_whole_has_nothing_to_calibrate(model, monkeypatch) -> None:
    monkeypatch.setattr(model, "units", Units("L", 4, 4, 4, 1))
    with pytest.raises(OptionError, match=r"always runs all of its 4 layers \(num_prefix_layers\)"):
        calibrate(model, 16)


def test_the_real_timer_runs_what_a_point_says(model, monkeypatch) -> None:
    from ada.model.modeling import AdaLlavaCausalLM

    seen, describe = [], AdaLlavaCausalLM._describe

    def spy(self, output, *rest):
        describe(self, output, *rest)
        seen.append(output.report)

    monkeypatch.setattr(AdaLlavaCausalLM, "_describe", spy)
    points = draw_points(model, 8)
    monkeypatch.setattr(measure, "ROUNDS", (1, 1))
    timed = time_points(points, timer_of(model))
    assert all(t.runs[0].ttft_ms > t.runs[0].to_plan_ms > 0 < t.inter_token_ms for t in timed)
    for point, ran in zip(points, seen[3:], strict=True):
        assert ran.prompt_tokens == point.num_tokens and ran.granted == model.units.fraction(point.num_units)
        assert (ran.prefill_flops["vision_tower"] > 0) == (point.num_images > 0)


class Hand:
    """A clock whose hand is moved: by so much at every reading of it."""

    def __init__(self, monkeypatch, *steps: float) -> None:
        self.now, self.steps = 100.0, list(steps)
        for reader in ("ada.latency.call_clock", "llava.generation"):
            monkeypatch.setattr(f"{reader}.time", SimpleNamespace(perf_counter=self))

    def __call__(self) -> float:
        self.now += self.steps.pop(0) / 1000 if self.steps else 0.0
        return self.now


def test_generate_under_a_time(model, monkeypatch, ids=((1, 5, 6, 7),)) -> None:
    """By a hand-made profile and clock: what is granted is what fits when the plan is made."""
    prompt = torch.tensor(ids)
    with pytest.raises(OptionError, match=r"850ms.*python -m ada\.calibrate"):
        model.generate(prompt, latency_budget="850ms", max_new_tokens=2)
    model.latency = TTFTPredictor(PROFILE, model.units)
    tokens, most = len(ids[0]) + 1, model.units.tunable
    plan = expected(Workload(tokens, 0, 0), model.units).to_plan_ms
    options = {"max_new_tokens": 2, **RETURN}
    granted = []
    for spent in (0.5 * plan, plan, 1.3 * plan, 2 * plan):
        ends = [model.latency.first_token_ms(Workload(tokens, n, 0), Elapsed(0, spent)) for n in range(most + 1)]
        for ms in (30.0, sorted(ends)[2] + 0.1, max(ends) + 50):
            Hand(monkeypatch, 0, spent)
            out = model.generate(prompt, latency_budget=TimeBudget(ms), **options)
            fits = [n for n, end in enumerate(ends) if end <= ms]
            assert out.report.granted == model.units.fraction(max(fits, default=0))
            assert out.execution_plan.share == pytest.approx(out.report.granted), "and that is what runs"
            assert out.report.budget_met == bool(fits) and out.report.plan_ms == pytest.approx(spent)
            assert out.report.predicted_ms == pytest.approx(ends[max(fits, default=0)])
            assert "predicted" in out.report.summary()
            granted += [out.report.granted] if ms == 30 else []
    assert granted == sorted(granted, reverse=True) and len(set(granted)) > 2, "the later, the less"
    Hand(monkeypatch, 0, plan)
    out = model.generate(prompt, latency_budget="1ms", **options)
    least = model.latency.first_token_ms(Workload(tokens, 0, 0), Elapsed(0, plan))
    assert not out.report.budget_met and f"{least:.4g} ms is the least here" in out.report.summary()
    least = model.latency.first_token_ms(Workload(tokens, 0, 0))
    with pytest.raises(OptionError, match=f"1ms.*takes {least:.4g} ms at the least"):
        model.generate(prompt, latency_budget="1ms", strict_latency_budget=True, **options)


def test_the_latency_token_is_told_what_is_granted_before(model, monkeypatch) -> None:
    model.latency = TTFTPredictor(PROFILE, model.units)
    told, encode = [], model.scheduler.encode
    monkeypatch.setattr(model.scheduler, "encode", lambda u: (told.append(u), encode(u))[1])
    plan = expected(Workload(4, 0, 0), model.units).to_plan_ms
    Hand(monkeypatch, 0, 9 * plan)
    budget = TimeBudget(model.latency.first_token_ms(Workload(4, 3, 0)) + 1e-6)
    out = model.generate(torch.tensor([[1, 5, 6]]), latency_budget=budget, max_new_tokens=1, **RETURN)
    before = model.latency.units_within(budget.milliseconds, 4, 0)
    assert told[0].tolist() == pytest.approx([model.units.encoding(before)]) and before >= 3
    assert out.report.granted == model.units.fraction(0), "and a slow way to the plan leaves nothing"


def test_each_row_has_its_own_time(model, monkeypatch) -> None:
    model.latency = TTFTPredictor(PROFILE, model.units)
    plan = expected(Workload(4, 0, 0), model.units).to_plan_ms
    Hand(monkeypatch, 0, 2 * plan)
    budgets = [TimeBudget(ms) for ms in (30.0, 45.0, 900.0)]
    out = model.generate(torch.tensor([[1, 5, 6]] * 3), latency_budget=budgets, max_new_tokens=1, **RETURN)
    gone = Elapsed(0, 2 * plan)
    most = [model.latency.units_within(budget.milliseconds, 4, 0, gone) for budget in budgets]
    assert [report.granted for report in out.report] == [model.units.fraction(n) for n in most]
    assert len(set(most)) == 3 and [plan.share for plan in out.execution_plan] == pytest.approx(
        [report.granted for report in out.report]
    )


def test_an_answer_that_is_given_does_not_change_what_its_question_is_granted(model) -> None:
    model.latency = TTFTPredictor(PROFILE, model.units)
    budget = TimeBudget(model.latency.first_token_ms(Workload(5, 3, 0)) + 1e-6)
    granted = set()
    for answer in ([7], [7] * 60):
        ids = torch.tensor([[1, 5, 6, 8, *answer]])
        labels = ids.clone()
        labels[:, :4] = IGNORE_INDEX
        granted.add(int(model(ids, labels=labels, latency_budget=budget).granted_units))
    assert granted == {model.latency.units_within(budget.milliseconds, 5, 0)}


def test_reading_the_question_counts_and_answers_teach(model, monkeypatch) -> None:
    """A program's clock runs since the question was asked: what came before the call is taken from the budget, and does
    not count as a slow device."""
    model.latency = TTFTPredictor(PROFILE, model.units)
    point = Workload(4, model.units.tunable, 0)
    plan, first = expected(point, model.units)
    budget = model.latency.first_token_ms(point, Elapsed(40, plan)) + 1e-6
    for before, whole in ((40.0, True), (41.0, False)):
        asked = TokenClock(None)
        asked.start = 100.0
        Hand(monkeypatch, before, plan, first - plan)
        out = model.generate(
            torch.tensor([[1, 5, 6]]),
            latency_budget=TimeBudget(budget),
            max_new_tokens=1,
            **RETURN,
            stopping_criteria=StoppingCriteriaList([asked]),
        )
        assert (out.report.granted == 1) == whole and out.report.before_ms == pytest.approx(before)
        assert out.report.budget_met and before < out.report.predicted_ms <= budget
    seen = []
    monkeypatch.setattr(model.latency, "observe", lambda *times: seen.append(times))
    for rows, tokens in ((1, asked), (1, None), (2, asked)):
        asked.stamps.clear()
        Hand(monkeypatch, 7, 3 * plan, 0.5 * plan)
        criteria = StoppingCriteriaList([] if tokens is None else [tokens])
        model.generate(torch.tensor([[1, 5, 6]] * rows), max_new_tokens=1, stopping_criteria=criteria)
    ((said, measured),) = seen
    assert said == expected(point, model.units) and measured == pytest.approx((3 * plan, 3.5 * plan))


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
    assert plot.stat().st_size > 5000 and DeviceFingerprint.of(model).path.exists()
    assert ready.stored_latency(model).profile.date
    assert calibrate_main([*flags, "--points", "3"]) == 2


def test_adherence_counts_what_was_met(model) -> None:
    """On a device whose times are known: quiet it keeps every budget; slower, it sees that before it has decided."""
    known = Known(model)
    profile, _ = calibrate(model, 64, timer=known)
    latency = TTFTPredictor(profile, model.units)
    known.step = 1.5
    points = draw_points(model, 60)
    kept, slower = bench_adherence.measure(model, points, latency, known, busy_from=60)
    assert slower == 1 and not kept["fixed"], "quiet, a request runs once"
    errors = bench_adherence.request_errors(kept)
    assert errors["prefill"]["p95"] == pytest.approx(0, abs=1e-6) and errors["decode"]["median"] == pytest.approx(0.5)
    quiet = bench_adherence.report(kept)
    assert quiet["quiet"]["met"] == 1 and quiet["busy, corrected"]["met"] is None
    assert 0.5 < quiet["quiet"]["used"] <= 1
    assert quiet["quiet"]["planned"] == pytest.approx(quiet["quiet"]["used"]), "times never vary"
    known.slower = 1.3
    kept, _ = bench_adherence.measure(model, points, latency, known, busy_from=60)
    assert bench_adherence.request_errors(kept)["prefill"]["median"] == pytest.approx(0.3)
    reachable = [one for one in kept["corrected"] if one.predicted_ms <= one.budget_ms]
    assert len(reachable) > 20 and all(one.met for one in reachable), "from the first on"


def test_a_busy_device_is_asked_for_what_it_can_reach(model, monkeypatch) -> None:
    """Three times slower from half-way on: budgets grow with it, so that the correction can keep them."""
    known = Known(model)
    profile, _ = calibrate(model, 64, timer=known)

    @contextlib.contextmanager
    def load():
        known.slower = 3.0
        yield

    monkeypatch.setattr(bench_adherence, "one_core_busy", load)
    latency = TTFTPredictor(profile, model.units)
    assert bench_adherence.slowdown(latency, draw_points(model, 9), known) == pytest.approx(1)
    learnt, observe = [], latency.observe
    monkeypatch.setattr(latency, "observe", lambda *times: (learnt.append(times), observe(*times)))
    kept, slower = bench_adherence.measure(model, draw_points(model, 200), latency, known, busy_from=100)
    assert len(learnt) == 200, "from its own requests, and not from what the load was probed with"
    told = bench_adherence.report(kept)
    assert slower == pytest.approx(3) and bench_adherence.request_errors({"corrected": []}) is None
    corrected, fixed = told["busy, corrected"], told["busy, fixed"]
    assert told["quiet"]["requests"] == 100 and corrected["requests"] == fixed["requests"] == 80
    assert corrected["met"] > 0.85 > fixed["met"]


def test_the_fixed_calibration_looks_at_no_clock_and_learns_nothing() -> None:
    fixed, point = TTFTPredictor(PROFILE, H7B).fixed(), Workload(640, 20, 1)
    plan, first = expected(point, H7B)
    for _ in range(WINDOW):
        fixed.observe(PrefillTiming(plan, first), PrefillTiming(3 * plan, 5 * first))
    assert fixed.first_token_ms(point, Elapsed(9, 3 * plan)) == pytest.approx(PROFILE.spread * first)


def test_what_little_is_left_behind_a_plan_teaches_nothing_of_other_plans() -> None:
    """Even where the fit expects nothing at all there: an answer without tunable units ends well."""
    bare = dataclasses.replace(PROFILE, rest=[0.0, 0.0, *REST[2:]])
    latency, point = TTFTPredictor(bare, L7B), Workload(640, 0, 1)
    most = Workload(640, 16, 1)
    before = latency.first_token_ms(most, Elapsed(0, 300))
    for _ in range(WINDOW):
        latency.observe(latency.expected(point), PrefillTiming(300, 900))
    assert latency.first_token_ms(most, Elapsed(0, 300)) == before
    assert latency.factor > 2, "the whole time teaches its factor"


@pytest.mark.parametrize(("layers", "prefix"), [(4, 3), (32, 31)])
def test_a_model_with_little_behind_its_plan_is_calibrated_too(model, monkeypatch, layers, prefix) -> None:
    monkeypatch.setattr(model, "units", Units("L", layers, prefix, 4, 1))
    monkeypatch.setattr(measure, "LEAST_TOKENS", 32)
    profile, _ = calibrate(model, 24, timer=Known(model))
    assert profile.spread == pytest.approx(1) and profile.rest_spread == pytest.approx(1)


@pytest.mark.parametrize("count", [24, 64])
def test_every_fit_has_the_ends(model, count) -> None:
    points = draw_points(model, count)
    fitted = [point.num_units for place, point in enumerate(points) if place % 4]
    for end in (0, model.units.tunable):
        assert fitted.count(end) >= count // 8
    assert len(set(fitted)) == model.units.tunable + 1, "and what is between them"


def test_points_with_a_picture_end_where_prompts_are_cut_off(model, monkeypatch) -> None:
    monkeypatch.setattr(model.config, "tokenizer_model_max_length", 100, raising=False)
    points = draw_points(model, 200)
    assert 90 < max(point.num_tokens for point in points if point.num_images) <= 101
    assert max(point.num_tokens for point in points if not point.num_images) > 150


def test_requests_reach_the_lengths_that_are_promised(model, monkeypatch) -> None:
    """As the bundled models are: 1,024 positions, and prompts with pictures cut off at 512."""
    monkeypatch.setattr(model.config, "max_position_embeddings", 1024)
    monkeypatch.setattr(model.config, "tokenizer_model_max_length", 512, raising=False)
    points = draw_points(model, 2000, least_tokens=bench_adherence.LEAST_TOKENS)
    words, pictures = ([p.num_tokens for p in points if p.num_images == count] for count in (0, 1))
    assert min(words) == 64 and 1020 <= max(words) <= 1024 and min(pictures) >= 64 and 500 < max(pictures) <= 513


def test_a_late_answer_uses_no_more_than_its_budget() -> None:
    late, early = (
        bench_adherence.RequestOutcome(100, 90, 300, False),
        bench_adherence.RequestOutcome(100, 90, 60, False),
    )
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
    whole = DeviceFingerprint.of(model)
    monkeypatch.setattr(model, "is_loaded_in_4bit", True, raising=False)
    four = DeviceFingerprint.of(model)
    assert whole.model != four.model and whole.path != four.path
    assert dataclasses.replace(whole, threads=7).path != whole.path


def test_answer_files_go_by_the_profile_alone(model, monkeypatch, tmp_path) -> None:
    from ada.overlay import prepare_model

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calibrate(model, 16, timer=Known(model))[0].save(DeviceFingerprint.of(model).path)
    for options, later in (({"batch_size": 1}, False), ({}, True)):
        model.latency = None
        prepare_model(model, {"latency_budget": "850ms", "no_auto_calibrate": True, **options})
        at_once, point = model.latency.first_token_ms(Workload(9, 2, 0)), Workload(9, 2, 0)
        assert (model.latency.first_token_ms(point, Elapsed(5, 900)) > at_once) == later


def test_times_hold_for_one_question_at_a_time(model) -> None:
    from ada.overlay import prepare_model

    with pytest.raises(OptionError, match="--batch-size is 4 and --latency-budget 850ms"):
        prepare_model(model, {"latency_budget": "850ms", "batch_size": 4})


def test_replies_say_what_was_measured(model) -> None:
    from ada.overlay import describe_generation

    model.latency = TTFTPredictor(PROFILE, model.units)
    out = model.generate(torch.tensor([[1, 5, 6]]), latency_budget="9s", max_new_tokens=2, return_dict_in_generate=True)
    facts = describe_generation(model, out, {"time_to_first_token_ms": 12.5})
    assert facts["measured_ms"] == 12.5 and facts["requested_ms"] == 9000 and facts["granted"] == 1
    assert "predicted" in facts["summary"] and facts["summary"].endswith("measured 12.5 ms")
