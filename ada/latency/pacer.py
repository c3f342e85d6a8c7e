"""Keeps the promises of one answer token by token: its plan may only shrink, and it ends where its time does.

Before each token the time that is left for it is compared with what it is predicted to take at the pace of this
answer's last tokens. Where that is more, the answer goes on under fewer units of the same scores: a plan within the
one that ran, so that no key is missing (``EngineRows.shrink``). Of ``tpot`` the average counts, so that what was saved
may be spent within the tokens still planned, ``HORIZON`` at the minimum; what is left of ``total`` is spread over them.

Where no time for another sentence is left, the answer ends with the sentence; where none for a token, at once.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from ada.budget import Budget, TimeBudget
from ada.execution.call_state import Execution
from ada.latency.latency_model import Workload
from ada.latency.ttft_predictor import TTFTPredictor
from ada.scheduling.execution_plan import ExecutionPlan
from llava.token_clock import TokenClock

HORIZON = 16  # tokens
MIN_REMAINING = 8  # tokens that an answer may still have, whatever it was planned with
PACE_OF = 12  # last tokens
MIN_PACE_OF = 6  # tokens, before which earlier answers' pace counts, too
STARTING = 3  # steps of an answer, and of a plan, that say nothing of its pace: weights are not in the caches yet
RESERVE = 0.95  # of the time that is left for a token: what a smaller plan is chosen to take
WAY_MS, WAY_SHARE = 20.0, 0.04  # of ``total``, the smaller of both is for the last token to reach who asked
MIN_SENTENCE = 6  # tokens that another sentence takes, before any has been seen
OUT_OF_TIME = "time"  # why an answer ended
MANY = 10**6  # tokens: no limit


def planned(
    budgets: Sequence[Budget | None], predictor: TTFTPredictor | None, limit: int | None, min_tokens: int | None = None
) -> list[Budget | None]:
    """Return the budgets of rows with the tokens that their answers are planned with.

    limit: the tokens that an answer may have; min_tokens: that it has.
    """
    if predictor is None or not any(isinstance(budget, TimeBudget) and budget.paces for budget in budgets):
        return list(budgets)
    tokens = max(min_tokens or 1, predictor.planned_tokens(limit or MANY))
    return [replace(one, later_tokens=tokens - 1) if isinstance(one, TimeBudget) else one for one in budgets]


def pacer_of(
    budgets: Sequence[Budget | None],
    predictor: TTFTPredictor | None,
    clock: TokenClock | None,
    execution: Execution,
    sentence_ends: Collection[int] = frozenset(),
    first_ms: float = 0.0,
) -> Pacer | None:
    """Return what keeps the promises of a call's answer, and let it see ``clock``'s tokens; None without promises.

    first_ms: predicted time to the first token, by which a predictor goes that does not look at the clock.
    """
    budget = budgets[0] if len(budgets) == 1 else None
    if predictor is None or clock is None or not (isinstance(budget, TimeBudget) and budget.paces):
        return None
    pacer = Pacer(budget, predictor, clock, execution, sentence_ends, first_ms)
    clock.on_token = pacer.saw
    return pacer


@dataclass
class Pacer:
    """One answer's. execution: of the call that read the prompt, which makes its plans.

    clock: of the answer, whose ``start`` is when the question was asked; sentence_ends: tokens that end a sentence.
    first_ms: predicted time to the first token. A predictor that does not follow the clock predicts the tokens' times,
    too, so that an answer is the same whenever it is given. Without ``next_plan``, as where transformers' loop decodes,
    ``total``'s end alone is kept.
    """

    budget: TimeBudget
    predictor: TTFTPredictor
    clock: TokenClock
    execution: Execution
    sentence_ends: Collection[int] = frozenset()
    first_ms: float = 0.0
    _times: list[float] = field(default_factory=list, init=False)  # of the tokens, in ms since the question
    _units: int | None = field(default=None, init=False)  # of the plan that runs, where that is not the prefill's
    _plan: ExecutionPlan | None = field(default=None, init=False)  # that one
    _step: Workload | None = field(default=None, init=False)  # that runs, or ran last
    _ratios: deque[float] = field(default_factory=lambda: deque(maxlen=PACE_OF), init=False)
    _starting: int = field(default=STARTING, init=False)  # steps that are left of these
    _sum: tuple[float, float] = field(default=(0.0, 0.0), init=False)  # measured and expected ms of all steps
    _sentences: int = field(default=0, init=False)

    @property
    def num_units(self) -> int:
        """Tunable units of the plan that runs."""
        return int(self.execution.granted[0]) if self._units is None else self._units

    def next_plan(self, workload: Workload, fixed: bool = False) -> ExecutionPlan | None:
        """Return the plan to go on with before a step, None for the one that runs.

        workload: of the step, under the plan that runs; fixed: no smaller plan would shorten it.
        """
        step = replace(workload, num_units=self.num_units)
        settling = self._units is not None and self._starting > 0  # after another plan
        fits = fixed or settling or self._takes(step) <= self._allowed_ms()
        plan = None if fits else self._shrink(step)
        self._step = replace(step, num_units=self.num_units)
        return plan

    def _shrink(self, step: Workload) -> ExecutionPlan | None:
        allowed, change_ms = RESERVE * self._allowed_ms(), self.predictor.change_ms

        def fits(num_units: int) -> bool:
            return self._takes(replace(step, num_units=num_units)) + change_ms(num_units) / HORIZON <= allowed

        num_units = next((units for units in range(self.num_units - 1, -1, -1) if fits(units)), 0)
        plan = None if num_units == self.num_units else self.execution.smaller_plan(0, num_units, self._plan)
        if plan is not None:
            self._plan, self._units, self._starting = plan, num_units, STARTING
            if self.execution.on_plan is not None:
                self.execution.on_plan([plan])
        return plan

    def saw(self, token: int) -> str | None:
        """Take note of a token, which the clock has just stamped; return why the answer is to end with it, or None."""
        times = self._times
        times.append(self._time_of_token())
        if self._step is not None and len(times) > 1:
            taken, expected = times[-1] - times[-2], self.predictor.token_ms(self._step)
            self._starting -= 1
            if self._starting < 0:
                self._ratios.append(taken / expected)
                self._sum = self._sum[0] + taken, self._sum[1] + expected
        ends_sentence = token in self.sentence_ends
        self._sentences += ends_sentence
        left = self._left_ms()
        if left is None or len(times) < 2:
            return None
        cheapest_ms = times[-1] - times[-2] if self._step is None else self._takes(replace(self._step, num_units=0))
        sentence = len(times) / self._sentences if self._sentences else MIN_SENTENCE
        more = min(sentence, max(1, self.budget.later_tokens + 1 - len(times)))
        return OUT_OF_TIME if left < cheapest_ms or (ends_sentence and left < more * cheapest_ms) else None

    def finish(self) -> None:
        """Teach the predictor, as the answer ends, how long it was and what its tokens took."""
        (measured, expected), self._sum = self._sum, (0.0, 0.0)
        if self._times:
            self.predictor.observe_length(len(self._times))
        if expected:
            self.predictor.observe_tokens(measured / expected)

    @property
    def _pace(self) -> float:
        """Measured over expected time of the last tokens, with earlier answers' where these are few."""
        known = min(1.0, len(self._ratios) / MIN_PACE_OF)
        own = statistics.median(self._ratios) if self._ratios else 0.0
        return known * own + (1 - known) * self.predictor.token_factor

    def _takes(self, step: Workload) -> float:
        return self._pace * self.predictor.token_ms(step)

    def _time_of_token(self) -> float:
        """When the last token was there; the predicted time, under the plan that ran, without a clock."""
        if self.predictor.follows_clock:
            return 1000 * (self.clock.stamps[-1] - self.clock.start)
        if self._times and self._step is not None:
            return self._times[-1] + self._takes(self._step)
        return self._times[-1] if self._times else self.first_ms

    def _now_ms(self) -> float:
        if self.predictor.follows_clock:
            return 1000 * (time.perf_counter() - self.clock.start)
        return self._times[-1]

    def _left_ms(self) -> float | None:
        """What ``total`` leaves from now on."""
        total = self.budget.total_ms
        return None if total is None else total - min(WAY_MS, WAY_SHARE * total) - self._now_ms()

    def _allowed_ms(self) -> float:
        """What the next token may take."""
        allowed = []
        done = len(self._times) - 1
        if self.budget.token_ms is not None:
            spent = self._now_ms() - self._times[0]
            ahead = max(HORIZON, self.budget.later_tokens - done)
            allowed.append((self.budget.token_ms * (done + ahead) - spent) / ahead)
        left = self._left_ms()
        if left is not None:
            allowed.append(left / max(MIN_REMAINING, self.budget.later_tokens - done))
        return min(allowed)
