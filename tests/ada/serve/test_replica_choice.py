"""The choice of a replica against trying every replica and plan, and what a promise that nobody keeps is answered."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ada.budget import TimeBudget, read_budget
from ada.latency.plan_times import PlanTimes
from ada.serve.replica_choice import OUT_OF_REACH, REFUSED, Ask, Offer, Turns, WayBack, choose, key_of
from llava.serve.protocol.errors import RequestFailure

NOW = 1000.0  # epoch seconds
PLANS = (PlanTimes(1.0, 100, 10), PlanTimes(0.5, 60, 6), PlanTimes(0.25, 40, 4))
OFFER = Offer(PLANS, PLANS, tokens=11, turn_ms=100, image_ms=30, prompt_ms=20)
IMAGE = key_of("an image")


def asked(promise: str | None, images: tuple[str, ...] = (), prompt: str = "What is it?") -> Ask:
    budget = None if promise is None else read_budget(promise)
    assert budget is None or isinstance(budget, TimeBudget)
    return Ask("m", budget, images, prompt, 32, NOW)


def test_request_is_read_and_what_is_no_promise_is_none() -> None:
    fields = {"model": "m", "latency_budget": "ttft=300ms", "images": ["an image"], "prompt": "p", "max_new_tokens": 7}
    ask = Ask.of(fields, NOW)
    assert ask == Ask("m", read_budget("ttft=300ms"), (IMAGE,), "p", 7, NOW)
    for budget in (0.5, None, "soon", {}, "auto"):
        assert Ask.of({**fields, "latency_budget": budget}, NOW).promise is None


@pytest.mark.parametrize(
    ("promise", "wait_ms", "share", "late_ms"),
    [
        ("ttft=100ms", 0, 1.0, 0),
        ("ttft=99ms", 0, 0.5, 0),
        ("ttft=99ms", 50, 0.25, 0),
        ("ttft=99ms", 60, 0.25, 1),
        ("tpot=6ms", 1000, 0.5, 0),
        ("total=199ms", 0, 0.5, 0),  # 60 + 10 * 6
        ("ttft=90ms,total=100ms", 60, 0.25, 40),
        ("ttft=1s,tpot=4ms", 0, 0.25, 0),
        (None, 5000, 1.0, 0),
    ],
)
def test_outcome_is_the_first_plan_that_keeps_the_promise(promise, wait_ms, share, late_ms) -> None:
    ask = asked(promise)
    outcome = OFFER.outcome(ask, ask.promise, wait_ms)
    assert (outcome.share, outcome.late_ms) == (share, late_ms)


def test_known_image_is_not_encoded() -> None:
    ask = asked("ttft=90ms", (IMAGE,))
    assert OFFER.outcome(ask, ask.promise, 0).share == 0.5
    assert replace(OFFER, images=frozenset({IMAGE})).outcome(ask, ask.promise, 0).share == 1.0


def test_replica_that_read_the_chats_beginning_is_preferred_among_equals_but_promises_nothing() -> None:
    ask = asked("ttft=1s", (IMAGE,), "What is it? A cat. Where?")
    knows = replace(OFFER, prompts=((11, key_of(IMAGE, "What is it?")),))
    assert choose(ask, [(OFFER, 0.0), (knows, 0.0)], NOW) == [1, 0]
    assert choose(ask, [(OFFER, 0.0), (knows, 21.0)], NOW) == [0, 1], "its wait is longer than reading"
    tight = asked("ttft=99ms", (IMAGE,), ask.prompt)
    assert knows.outcome(tight, tight.promise, 0).share == 0.5


times = st.integers(1, 400).map(float)
plans = st.lists(st.tuples(times, times), min_size=1, max_size=4).map(
    lambda found: [PlanTimes(1 - number / 4, *pair) for number, pair in enumerate(sorted(found, reverse=True))]
)
offers = st.builds(
    Offer,
    plans,
    plans,
    st.integers(1, 20),
    times,
    st.just(0.0),
    st.just(0.0),
)


@given(
    st.lists(st.none() | st.tuples(offers, times | st.just(0.0)), min_size=1, max_size=4),
    st.tuples(times, times, times),
    st.integers(1, 30),
    st.floats(0, 0.2),
)
def test_chosen_replica_gives_the_best_share_in_time_else_is_least_late(
    given_offers, clauses, tokens, passed_s
) -> None:
    promise = dict(zip(("ttft", "tpot", "total"), clauses, strict=True))
    ask = Ask("m", TimeBudget.of(promise), (), "", tokens, NOW)
    passed_ms = 1000 * (NOW + passed_s - NOW)
    left = {name: ms if name == "tpot" else max(1.0, ms - passed_ms) for name, ms in promise.items()}

    def late_ms(offer: Offer, plan: PlanTimes, wait_ms: float, left: dict[str, float] = left) -> float:
        first = max(1.0, wait_ms + plan.ttft_ms)
        total = first + (max(1, min(offer.tokens, tokens)) - 1) * plan.token_ms
        return max(0.0, first - left["ttft"], plan.token_ms - left["tpot"], total - left["total"])

    ranks, idle, at_once = {}, [], []
    for number, offer in enumerate(given_offers):
        if offer is not None:
            [replica, wait_ms] = offer
            kept = [plan.share for plan in replica.plans if not late_ms(replica, plan, wait_ms)]
            ranks[number] = (0.0, -kept[0]) if kept else (late_ms(replica, replica.plans[-1], wait_ms), 0.0)
            idle.append(any(not late_ms(replica, plan, 0.0) for plan in replica.shortest))
            at_once.append(any(not late_ms(replica, plan, 0.0, promise) for plan in replica.shortest))
    silent = [number for number, offer in enumerate(given_offers) if offer is None]
    if not silent and not any(idle):
        with pytest.raises(RequestFailure) as refused:
            choose(ask, given_offers, NOW + passed_s)
        expected = (503, OUT_OF_REACH, 1) if any(at_once) else (400, REFUSED, None)
        assert (refused.value.status, refused.value.reason, refused.value.retry_after) == expected
        return
    order = choose(ask, given_offers, NOW + passed_s)
    assert sorted(order) == sorted(ranks)
    found = [ranks[number] for number in order]
    assert [late for late, _ in found] == pytest.approx(sorted(late for late, _ in ranks.values()))
    in_time = [share for late, share in found if not late]
    assert in_time == sorted(in_time)


def test_refusal_says_what_is_possible() -> None:
    assert choose(asked("ttft=90ms"), [(OFFER, 80.0), (OFFER, 60.0)], NOW) == [1, 0], "a replica may say no itself"
    with pytest.raises(RequestFailure) as never:
        choose(asked("ttft=20ms,tpot=5ms"), [(OFFER, 0.0)], NOW)
    assert never.value.status == 400 and "ttft=40ms,tpot=4ms is the minimum" in str(never.value)
    with pytest.raises(RequestFailure, match=r"any more: 60 ms .*, and ttft=40ms,tpot=4ms is the minimum") as late:
        choose(asked("ttft=90ms,tpot=4ms"), [(OFFER, 0.0)], NOW + 0.06)
    assert (late.value.status, late.value.reason, late.value.retry_after) == (503, OUT_OF_REACH, 1)


def test_promise_that_a_short_prompt_keeps_is_for_the_replica_to_refuse() -> None:
    """What the last prompts took, or the load, is no reason to refuse for good: other requests are shorter."""
    short = (PlanTimes(1.0, 10, 2), PlanTimes(0.25, 5, 1))
    offer = replace(OFFER, shortest=short, images=frozenset({IMAGE}))
    for promise in ("ttft=5ms", "tpot=1ms", "total=15ms", "ttft=39ms,tpot=3ms"):
        assert choose(asked(promise, (IMAGE,)), [(offer, 900.0)], NOW) == [0]
    for promise in ("ttft=4ms", "tpot=0.9ms", "total=14ms"):
        with pytest.raises(RequestFailure) as refused:
            choose(asked(promise, (IMAGE,)), [(offer, 0.0)], NOW)
        assert (refused.value.status, refused.value.reason) == (400, REFUSED)


def test_turns_wait_for_what_was_sent() -> None:
    turns = Turns()
    assert turns.wait_ms("a", NOW) == 0
    for _ in range(3):
        turns.sent("a", OFFER, NOW)
    assert turns.wait_ms("a", NOW) == pytest.approx(300) and turns.wait_ms("b", NOW) == 0
    assert turns.wait_ms("a", NOW + 0.1) == pytest.approx(200) and turns.wait_ms("a", NOW + 5) == 0


def test_way_back_is_the_95th_percentile_of_the_last_answers_and_forgotten() -> None:
    way_back = WayBack()
    assert way_back.seconds(NOW) == 0
    for number in range(100):
        way_back.observe(number / 1000, NOW)  # the last 50 count
    assert way_back.seconds(NOW + 1) == pytest.approx(0.097)
    assert way_back.seconds(NOW + 60) == 0
    early = WayBack()
    early.observe(-0.01, NOW)
    assert early.seconds(NOW) == 0, "clocks that differ are no reason to promise more"


def test_order_of_equals_is_by_time_without_a_promise() -> None:
    waits = [30.0, 0.0, 10.0]
    for order in itertools.permutations(range(3)):
        found = choose(asked(None), [(OFFER, waits[n]) for n in order], NOW)
        assert [waits[order[n]] for n in found] == sorted(waits)
