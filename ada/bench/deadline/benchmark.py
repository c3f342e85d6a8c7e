"""Runs the deadline benchmark: each contestant, under each load, at each deadline."""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ada.bench.deadline.client import MANY, Endpoint, Outcome, ask_at_times
from ada.bench.deadline.contestants import Contestant
from ada.bench.deadline.scores import Curve, point, span_of
from ada.eval.questions.question_set import Item
from llava.errors import OptionError

WARM_UP, PROBES, PROBES_AT_ONCE = 4, 24, 4
PROBED = 2 * PROBES  # items that were asked alone, or for the capacity
SPREAD = (0.5, 0.7, 1.0, 1.4, 2.0, 4.0)  # of the median time alone: deadlines where none are given
NO_DEADLINE_MS = 600_000.0

EndpointOf = Callable[[Contestant], contextlib.AbstractContextManager[Endpoint]]


@dataclass(frozen=True)
class Settings:
    """What is asked. deadlines_ms: none for multiples of the first contestant's median time.

    loads: arrivals a second over what the first contestant serves; requests: of each run.
    """

    deadlines_ms: Sequence[float]
    loads: Sequence[float]
    requests: int
    max_tokens: int
    seed: int


@dataclass(frozen=True)
class Found:
    """What the first contestant does without a deadline: its median time alone, its answers a second; and all curves.

    curves: by load, then by contestant.
    """

    alone_ms: float
    capacity: float
    curves: Sequence[Curve]


def run_all(contestants: Sequence[Contestant], endpoint_of: EndpointOf, items: Sequence[Item], run: Settings) -> Found:
    """Run every contestant; each one's server is there while it runs. Raises OptionError where a probe fails."""
    alone_ms = capacity = 0.0
    deadlines, curves = list(run.deadlines_ms), []
    for contestant in contestants:
        with endpoint_of(contestant) as endpoint:
            asker = Asker(endpoint, contestant, items, run)
            asker.ask([0.0] * WARM_UP, first=-WARM_UP)
            if contestant is contestants[0]:
                alone_ms, capacity = asker.alone_ms(), asker.capacity()
                deadlines = deadlines or [float(f"{share * alone_ms:.3g}") for share in SPREAD]
                print(f"{contestant.name}: {alone_ms:.0f} ms alone, {capacity:.3g} answers/s", file=sys.stderr)
            for number, load in enumerate(run.loads):
                curves.append(asker.curve(load * capacity, deadlines, PROBED + number * run.requests))
    return Found(alone_ms, capacity, sorted(curves, key=lambda curve: curve.rate))


@dataclass(frozen=True)
class Asker:
    """Asks the items, from the first one on, as one contestant.

    Where there are enough, none is asked twice before the end, but for one deadline after another: a server may know
    what it has read.
    """

    endpoint: Endpoint
    contestant: Contestant
    items: Sequence[Item]
    run: Settings

    def ask(
        self, times: Sequence[float], deadline_ms: float = NO_DEADLINE_MS, at_once: int = MANY, first: int = 0
    ) -> list[Outcome]:
        """Ask a question at each of the times, in seconds, from the item of number ``first`` on."""
        items = [self.items[(first + number) % len(self.items)] for number in range(len(times))]
        fields = self.contestant.fields(deadline_ms)
        bodies = [self.endpoint.body(item, fields, self.run.max_tokens) for item in items]
        return asyncio.run(ask_at_times(self.endpoint, items, bodies, times, at_once))

    def alone_ms(self) -> float:
        """Return the median time of an answer, one at a time. Raises OptionError where a question is not answered."""
        outcomes = [outcome for number in range(PROBES) for outcome in self.ask([0.0], first=number)]
        self._check(outcomes)
        return 1000 * statistics.median(one.total_s for one in outcomes)

    def capacity(self) -> float:
        """Return the answers a second with ``PROBES_AT_ONCE`` requests at a time."""
        outcomes = self.ask([0.0] * PROBES, at_once=PROBES_AT_ONCE, first=PROBES)
        self._check(outcomes)
        return PROBES / max(one.total_s for one in outcomes)

    def _check(self, outcomes: Sequence[Outcome]) -> None:
        failed = next((one for one in outcomes if one.failure is not None), None)
        if failed is not None:
            raise OptionError(f"{self.contestant.name} at {self.endpoint.url} does not answer: {failed.failure}")

    def curve(self, rate: float, deadlines_ms: Sequence[float], first: int) -> Curve:
        """Return the curve under arrivals at random, ``rate`` a second on average, the same ones for the same seed.

        first: the number of the first item that is asked.
        """
        rng, at, times = random.Random(self.run.seed), 0.0, []
        for _ in range(self.run.requests):
            at += rng.expovariate(rate)
            times.append(at)
        if self.contestant.knows_deadline:
            runs = [self.ask(times, deadline, first=first) for deadline in deadlines_ms]
        else:
            runs = [self.ask(times, first=first)] * len(deadlines_ms)
        of_deadlines = zip(runs, deadlines_ms, strict=True)
        points = [point(outcomes, deadline, span_of(times, outcomes)) for outcomes, deadline in of_deadlines]
        return self._said(Curve(self.contestant.name, rate, points))

    def _said(self, curve: Curve) -> Curve:
        shares = ", ".join(f"{one.deadline_ms:g} ms {100 * one.accuracy:.1f} %" for one in curve.points)
        print(f"{curve.contestant}, {curve.rate:.3g} requests/s: {shares}", file=sys.stderr)
        return curve


@contextlib.contextmanager
def given(endpoint: Endpoint) -> Iterator[Endpoint]:
    """Yield an endpoint that is there already."""
    yield endpoint
