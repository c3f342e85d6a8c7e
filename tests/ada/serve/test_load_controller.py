"""Load-adaptive budgets: values counted by hand, properties, and a worker under simulated arrivals."""

import heapq
import random
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ada.serve.load_adaptive import LoadAdaptiveBudget
from ada.serve.load_controller import LoadController
from llava.errors import OptionError
from llava.serve.engine.request_queue import Load

CONTROLLER = LoadController(0.5, max_queue_wait_s=2.0, recovery_s=10.0)


@pytest.mark.parametrize(
    ("previous", "wait", "elapsed", "expected"),
    [
        (1.0, 0.0, 0.0, 1.0),
        (1.0, 0.2, 0.0, 1.0),  # within the slack
        (1.0, 1.1, 0.0, 0.75),  # half way from there to the maximum wait
        (1.0, 0.65, 0.0, 0.875),
        (1.0, 2.0, 0.0, 0.5),
        (1.0, 9.0, 0.0, 0.5),
        (0.5, 0.0, 1.0, 0.55),  # a tenth of the way back
        (0.5, 0.0, 10.0, 1.0),
        (0.5, 0.0, 99.0, 1.0),
        (0.5, 1.1, 99.0, 0.75),
    ],
)
def test_next_factor_equals_values_counted_by_hand(previous, wait, elapsed, expected) -> None:
    assert CONTROLLER.next(previous, wait, elapsed) == pytest.approx(expected)


def test_granted_budget_is_scaled_down_to_the_minimum_only() -> None:
    assert CONTROLLER.granted(1.0, 0.75) == 0.75 and CONTROLLER.granted(0.8, 0.75) == pytest.approx(0.6)
    assert CONTROLLER.granted(0.6, 0.5) == 0.5, "not below the minimum"
    assert CONTROLLER.granted(0.4, 0.5) == 0.4, "a smaller request is granted as it is"


@pytest.mark.parametrize(
    ("fields", "flag"),
    [
        ((0.0,), "--adaptive-budget"),
        ((1.1,), "--adaptive-budget"),
        ((float("nan"),), "--adaptive-budget"),
        ((0.5, 0.0), "--adaptive-patience"),
        ((0.5, 1.0, -1.0), "--adaptive-recovery"),
        ((0.5, float("inf")), "--adaptive-patience"),
    ],
)
def test_load_controller_bad_number_names_the_flag(fields, flag) -> None:
    with pytest.raises(OptionError, match=flag):
        LoadController(*fields)


SHARE = st.floats(0.05, 1)


@given(SHARE, SHARE, st.floats(0, 1000), st.floats(0, 1000), SHARE)
def test_next_factor_keeps_its_bounds_and_is_monotonic(minimum, position, wait, elapsed, requested) -> None:
    controller = LoadController(minimum)
    previous = minimum + position * (1 - minimum)
    following = controller.next(previous, wait, elapsed)
    assert minimum <= following <= 1
    assert controller.next(previous, wait + 1, elapsed) <= following, "a longer wait, no more budget"
    assert controller.next(previous, wait, elapsed + 1) >= following, "time only raises it"
    assert min(requested, minimum) <= controller.granted(requested, following) <= requested


def test_load_adaptive_budget_follows_the_load_over_time() -> None:
    now = [0.0]
    adaptive = LoadAdaptiveBudget(CONTROLLER, clock=lambda: now[0])

    def update(at: float, waiting: int = 0, seconds: float | None = 1.0, slots: int = 1, waited: float = 0.0) -> float:
        now[0] = at
        return adaptive.update(Load(waiting, 1, slots, seconds, waited))

    assert update(1.0, waiting=50, seconds=None) == 1.0, "nothing was measured yet"
    assert update(2.0, waiting=50) == 0.5
    assert update(4.0) == pytest.approx(0.6)
    assert update(99.0) == adaptive.multiplier == 1.0
    assert update(199.0, waiting=1, seconds=1.1) == pytest.approx(0.75)
    assert update(299.0, waiting=1, seconds=1.3, slots=2) == pytest.approx(0.875)
    assert update(399.0, waiting=9, seconds=0.01) == 1, "short requests, short wait"
    assert update(499.0, waited=1.1) == pytest.approx(0.75), "nothing waits, but the request has waited long"
    assert update(599.0, waiting=2, waited=1.1) == 0.5


def test_current_factor_rises_without_requests_and_changes_nothing() -> None:
    now = [0.0]
    adaptive = LoadAdaptiveBudget(CONTROLLER, clock=lambda: now[0])
    adaptive.update(Load(50, 1, 1, 1.0))
    shown = []
    for now[0] in (0.0, 2.0, 2.0, 99.0):
        shown.append(adaptive.current())
    assert shown == pytest.approx([0.5, 0.6, 0.6, 1.0]) and adaptive.multiplier == 0.5
    now[0] = 4.0
    assert adaptive.update(Load(0, 1, 1, 1.0)) == pytest.approx(0.7), "time counts from the last request"


def simulate(controller: LoadController | None, rate: float, seconds: float, max_waiting: int, seed: int = 0):
    """One server with Poisson arrivals at ``rate`` a second; a request takes 0.3 s and 0.7 s times its budget.

    Returns [(arrival, wait, budget)] of the requests that were served, and the arrivals that were refused.
    """
    rng, now = random.Random(seed), [0.0]
    adaptive = None if controller is None else LoadAdaptiveBudget(controller, clock=lambda: now[0])
    arrivals, at = [], 0.0
    while (at := at + rng.expovariate(rate)) < seconds:
        arrivals.append(at)
    events = [(at, "arrival") for at in arrivals]
    heapq.heapify(events)
    waiting: deque[float] = deque()
    busy, mean, served, refused = False, None, [], []
    while events:
        now[0], what = heapq.heappop(events)
        if what == "arrival" and len(waiting) >= max_waiting + (not busy):
            refused.append(now[0])
            continue
        if what == "arrival":
            waiting.append(now[0])
        else:
            busy = False
        if waiting and not busy:
            arrived = waiting.popleft()
            multiplier = 1.0 if adaptive is None else adaptive.update(Load(len(waiting), 1, 1, mean, now[0] - arrived))
            budget = 1.0 if controller is None else controller.granted(1.0, multiplier)
            takes = 0.3 + 0.7 * budget
            mean = takes if mean is None else mean + 0.2 * (takes - mean)
            served.append((arrived, now[0] - arrived, budget))
            heapq.heappush(events, (now[0] + takes, "end"))
            busy = True
    return served, refused


SIMULATED = LoadController(0.4, max_queue_wait_s=2.0, recovery_s=20.0)


@pytest.mark.parametrize("seed", range(3))
def test_overloaded_worker_lowers_budgets_before_it_refuses(seed) -> None:
    """1.5 times what full budgets can serve: a fixed budget refuses a third, an adaptive one few."""
    fixed, fixed_refused = simulate(None, 1.5, 2000, max_waiting=8, seed=seed)
    served, refused = simulate(SIMULATED, 1.5, 2000, max_waiting=8, seed=seed)
    assert len(fixed_refused) > 0.25 * (len(fixed) + len(fixed_refused))
    assert len(refused) < 0.2 * len(fixed_refused)
    mean = [sum(wait for _, wait, _ in run) / len(run) for run in (fixed, served)]
    assert mean[1] < 0.5 * mean[0]
    budgets = [budget for _, _, budget in served]
    assert min(budgets) == 0.4 and sum(budgets) / len(budgets) > 0.45, "not lower than it must be"


def test_little_load_keeps_budgets_near_1() -> None:
    served, refused = simulate(SIMULATED, 0.3, 2000, max_waiting=8)
    assert not refused and sum(budget for *_, budget in served) / len(served) > 0.9


def test_budgets_rise_again_without_load() -> None:
    now = [0.0]
    adaptive = LoadAdaptiveBudget(SIMULATED, clock=lambda: now[0])
    adaptive.update(Load(20, 1, 1, 1.0))
    assert adaptive.multiplier == 0.4
    steps = []
    for second in range(1, 22):
        now[0] = float(second)
        steps.append(adaptive.update(Load(0, 1, 1, 1.0)))
    assert steps == sorted(steps) and steps[18] < 1 == steps[19]
