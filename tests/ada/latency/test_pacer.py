"""Promises for whole answers on a simulated device: kept where the cheapest plan can, and by no more than needed."""

from __future__ import annotations

import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
from fixtures.known_device import H7B, KNOWN, PROFILE
from hypothesis import given, settings
from hypothesis import strategies as st

from ada.budget import TimeBudget
from ada.latency.latency_model import Workload
from ada.latency.pacer import MIN_REMAINING, OUT_OF_TIME, WAY_MS, Pacer, pacer_of, planned
from ada.latency.ttft_predictor import TTFTPredictor
from llava.token_clock import TokenClock

PERIOD = 7  # the token that ends a sentence


class Device:
    """A device on which a step takes ``pace(token)`` times what the profile predicts, and its clock."""

    def __init__(self, monkeypatch, pace=lambda token: 1.0) -> None:
        self.now, self.pace = 50.0, pace
        self.shown: list[str] = []  # plans
        for reader in ("ada.latency.pacer", "llava.token_clock"):
            monkeypatch.setattr(f"{reader}.time", SimpleNamespace(perf_counter=lambda: self.now))

    def answer(self, budget, tokens, predictor=None, sentence=10, units=H7B.tunable, first_ms=300.0, paced=True):
        """Decode an answer; return its clock, the units of each step, and why it ended before its last token."""
        predictor = predictor or TTFTPredictor(PROFILE, H7B)
        execution = SimpleNamespace(
            granted=[units], smaller_plan=lambda row, count, current: f"plan of {count}", on_plan=self.shown.extend
        )
        clock = TokenClock()
        budgets = planned([budget], predictor, tokens, tokens)
        pacer = pacer_of(budgets, predictor, clock, execution, {PERIOD}, first_ms)
        assert isinstance(pacer, Pacer)
        self.now += first_ms / 1000
        clock.tick(SimpleNamespace(type="cpu"), 1)
        ran = []
        for token in range(1, tokens):
            if clock.ended_by:
                break
            step = Workload(600 + token, units, 0)
            if paced:
                pacer.next_plan(step)
            ran.append(pacer.num_units)
            self.now += self.pace(token) * KNOWN.inter_token_ms(replace(step, num_units=ran[-1]), H7B) / 1000
            clock.tick(SimpleNamespace(type="cpu"), PERIOD if token % sentence == sentence - 1 else 2)
        pacer.finish()
        return clock, ran, clock.ended_by


def token_ms(units, context=600):
    return KNOWN.inter_token_ms(Workload(context, units, 0), H7B)


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0.02, 1.2), pace=st.floats(0.7, 1.4), tokens=st.integers(30, 150), late=st.booleans())
def test_average_time_of_tokens_is_kept_where_the_cheapest_plan_keeps_it(share, pace, tokens, late):
    """At another pace than calibrated, from the start or from half-way on."""
    with pytest.MonkeyPatch.context() as patch:
        device = Device(patch, lambda token: pace if not late or token > tokens // 2 else 1.0)
        low, high = token_ms(0, 600 + tokens), token_ms(H7B.tunable)
        allowed = max(1.0, pace) * (low + 0.08 * high + share * (high - low))
        clock, ran, ended = device.answer(TimeBudget(token_ms=allowed), tokens)
    average = 1000 * (clock.stamps[-1] - clock.stamps[0]) / (len(clock.stamps) - 1)
    assert average <= allowed * 1.01 and ended is None
    assert ran == sorted(ran, reverse=True), "plans only shrink"
    if allowed > 1.1 * max(pace, 1.03) * token_ms(H7B.tunable, 600 + tokens) and not late:
        assert ran[-1] == H7B.tunable, "nothing is given up for what fits"


def test_each_plan_that_shrinks_is_shown(monkeypatch):
    device = Device(monkeypatch)
    _, ran, _ = device.answer(TimeBudget(token_ms=0.7 * token_ms(H7B.tunable)), 60)
    smaller = [units for before, units in zip([H7B.tunable, *ran], ran, strict=False) if units < before]
    assert smaller and device.shown == [f"plan of {units}" for units in smaller]


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0.1, 2.5), pace=st.floats(0.7, 1.5), tokens=st.integers(20, 150), seed=st.integers(0, 99))
def test_total_is_kept_whatever_happens(share, pace, tokens, seed):
    rng = random.Random(seed)
    with pytest.MonkeyPatch.context() as patch:
        device = Device(patch, lambda token: pace * rng.uniform(0.95, 1.05))
        total = 300 + (tokens - 1) * (token_ms(0) + share * (token_ms(H7B.tunable) - token_ms(0)))
        clock, ran, ended = device.answer(TimeBudget(total_ms=total), tokens)
    measured = 1000 * (clock.stamps[-1] - clock.start)
    assert measured <= total * 1.02
    assert ran == sorted(ran, reverse=True)
    if ended is None:
        assert len(clock.stamps) == tokens
    else:
        assert ended == OUT_OF_TIME and total < 300 + 1.5 * tokens * pace * 1.06 * token_ms(0, 600 + tokens)
    slow_ms = 1.06 * max(pace, 1.03) * token_ms(H7B.tunable, 600 + tokens)
    if total > 300 + WAY_MS + (tokens + MIN_REMAINING) * slow_ms:
        assert ended is None and ran[-1] == H7B.tunable, "nothing is given up for what fits"


@pytest.mark.parametrize("times", [1.0, 20.0])
def test_ample_total_gives_nothing_up(monkeypatch, times):
    """Down to what the tokens take, with as many more as an answer may have at any time."""
    enough = 300 + WAY_MS + (60 + MIN_REMAINING) * 1.03 * token_ms(H7B.tunable, 660)
    _, ran, ended = Device(monkeypatch).answer(TimeBudget(total_ms=times * enough), 60)
    assert set(ran) == {H7B.tunable} and ended is None


def test_answer_without_time_for_another_sentence_ends_with_one(monkeypatch):
    device = Device(monkeypatch)
    clock, ran, ended = device.answer(TimeBudget(total_ms=300 + 47 * token_ms(0)), 100)
    assert ended == OUT_OF_TIME and len(clock.stamps) % 10 == 0, "the tenth token of a sentence is its last"
    assert ran[-1] == 0


def test_fast_device_keeps_all_units(monkeypatch):
    device = Device(monkeypatch, lambda token: 0.5)
    _, ran, ended = device.answer(TimeBudget(token_ms=1.05 * token_ms(H7B.tunable)), 60)
    assert set(ran) == {H7B.tunable} and ended is None


def test_spike_of_one_token_shrinks_nothing_that_time_has_been_saved_for(monkeypatch):
    device = Device(monkeypatch, lambda token: 6.0 if token == 30 else 0.9)
    _, ran, _ = device.answer(TimeBudget(token_ms=1.25 * token_ms(H7B.tunable)), 60)
    assert set(ran) == {H7B.tunable}


def test_answers_teach_their_pace_and_their_length(monkeypatch):
    device, predictor = Device(monkeypatch, lambda token: 1.8), TTFTPredictor(PROFILE, H7B)
    assert predictor.planned_tokens(500) == 32 and predictor.planned_tokens(20) == 20
    for _ in range(50):
        device.answer(TimeBudget(token_ms=1e4), 70, predictor)
    assert predictor.token_factor == pytest.approx(1.8) and predictor.planned_tokens(500) == 70
    device.answer(TimeBudget(token_ms=1e4), 70, predictor.fixed())
    assert predictor.fixed().token_factor == 1.03 and predictor.fixed().planned_tokens(500) == 32


def test_units_within_a_total_leave_time_for_the_tokens():
    predictor, prompt = TTFTPredictor(PROFILE, H7B), Workload(600, 0, 1)
    for later in (10, 40, 160):
        total = 0.8 * (predictor.first_token_ms(replace(prompt, num_units=H7B.tunable)) + later * 1.03 * token_ms(64))
        budget = TimeBudget(total_ms=total, later_tokens=later)
        granted = predictor.units_within(budget, prompt)
        assert 0 < granted < H7B.tunable
        fits = [predictor.times(budget, replace(prompt, num_units=u))["total"] <= total for u in range(65)]
        assert fits == [u <= granted for u in range(65)]


def test_time_of_tokens_limits_their_own_plan_and_not_the_prefill():
    predictor, prompt = TTFTPredictor(PROFILE, H7B), Workload(600, H7B.tunable, 1)
    budget = TimeBudget(token_ms=1.03 * token_ms(20, 601), later_tokens=2)
    assert predictor.units_within(budget, prompt) == H7B.tunable
    assert predictor.token_units(budget, prompt) == 20
    both = replace(budget, total_ms=predictor.first_token_ms(prompt) + 1e4)
    assert predictor.units_within(both, prompt) == H7B.tunable


def test_short_answers_teach_their_length(monkeypatch):
    """Their steps say nothing of the pace, but yes and no are planned as such."""
    device, predictor = Device(monkeypatch, lambda token: 1.8), TTFTPredictor(PROFILE, H7B)
    for _ in range(50):
        device.answer(TimeBudget(total_ms=1e5), 2, predictor)
    assert predictor.planned_tokens(500) == 2 and predictor.token_factor == pytest.approx(1.03)


@pytest.mark.parametrize("budget", [TimeBudget(token_ms=0.7 * token_ms(64)), TimeBudget(total_ms=700.0)], ids=str)
def test_answers_without_the_clock_are_the_same_on_a_slow_device(monkeypatch, budget):
    predictor = TTFTPredictor(PROFILE, H7B)

    def answered(pace, predictor):
        clock, ran, ended = Device(monkeypatch, lambda token: pace).answer(budget, 60, predictor)
        return len(clock.stamps), ran, ended

    assert answered(0.5, predictor.fixed()) == answered(5.0, predictor.fixed())
    assert answered(0.5, predictor) != answered(5.0, predictor), "by the clock they are not"


def test_total_ends_an_answer_whose_plan_is_fixed(monkeypatch):
    """As where transformers' loop decodes."""
    device, budget = Device(monkeypatch, lambda token: 3.0), TimeBudget(total_ms=1500.0)
    clock, ran, ended = device.answer(budget, 500, paced=False)
    assert ended == OUT_OF_TIME and 2 < len(ran) < 499 and set(ran) == {H7B.tunable}
    assert 1200 < 1000 * (clock.stamps[-1] - clock.start) <= 1500
