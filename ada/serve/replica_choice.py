"""Chooses a request's replica: the one that gives the best share within its promise, and knows most of its prompt."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ada.budget import TimeBudget, read_budget
from ada.latency.plan_times import PlanTimes
from llava.errors import OptionError
from llava.serve.protocol.errors import RequestFailure

REFUSED, OUT_OF_REACH = "promise_not_possible", "promise_out_of_reach"  # reasons of refusals, for programs
QUANTILE, LAST, FORGET_S = 0.95, 50, 30.0  # of the last answers' ways


def key_of(*texts: str) -> str:
    """Return a short hash by which an image's base64, or a prompt after its images' keys, is known again."""
    return hashlib.blake2b("\n".join(texts).encode(errors="surrogatepass"), digest_size=12).hexdigest()


class Ask(NamedTuple):
    """What the router reads of a request.

    model: its name. promise: its budget in time, if any. images: their keys. arrived: what the promise counts from, in
    epoch seconds.
    """

    model: str
    promise: TimeBudget | None
    images: tuple[str, ...]
    prompt: str
    max_tokens: int
    arrived: float

    @classmethod
    def of(cls, fields: Mapping[str, Any], arrived: float) -> Ask:
        """Read the fields of a ``GenerationBody``. What is malformed is no promise: the replica says what is wrong."""
        try:
            budget = read_budget(fields.get("latency_budget"))
        except OptionError:
            budget = None
        promise, images = budget if isinstance(budget, TimeBudget) else None, tuple(map(key_of, fields["images"]))
        return cls(fields["model"], promise, images, fields["prompt"], fields["max_new_tokens"], arrived)


class WayBack:
    """How much later than a replica counts them an answer's first and last tokens are there."""

    def __init__(self) -> None:
        self._delays: deque[tuple[float, float]] = deque(maxlen=LAST)  # epoch seconds, seconds

    def observe(self, delay_s: float, now: float) -> None:
        """Learn from an answer."""
        self._delays.append((now, delay_s))

    def seconds(self, now: float) -> float:
        """Return what most of the last answers took at most; 0 where there were none lately."""
        delays = sorted(delay for then, delay in self._delays if now - then < FORGET_S)
        return max(0.0, delays[int(QUANTILE * len(delays))]) if delays else 0.0


class Outcome(NamedTuple):
    """What a request would get. late_ms: by how much its promise is missed. order_ms: decides between equals."""

    late_ms: float
    share: float
    times: Mapping[str, float]  # milliseconds of each clause
    order_ms: float


@dataclass(frozen=True)
class Offer:
    """What a replica could give to a prompt as its last ones were.

    plans: from all units down to none. shortest: these for the shortest prompt where nothing else runs. tokens: that an
    answer is planned with. turn_ms: from one request's turn to the next one's; image_ms: of encoding an image;
    prompt_ms: of a prompt in the prefix layers. images: keys of those whose features are known; prompts: (characters,
    key) of those read last.
    """

    plans: Sequence[PlanTimes]
    shortest: Sequence[PlanTimes]
    tokens: int
    turn_ms: float
    image_ms: float
    prompt_ms: float
    images: frozenset[str] = frozenset()
    prompts: tuple[tuple[int, str], ...] = ()

    def outcome(self, ask: Ask, promise: TimeBudget | None, wait_ms: float) -> Outcome:
        """Predict what a request gets that waits ``wait_ms``: the best share that keeps the promise, or the cheapest.

        That its prompt's beginning was read here decides between replicas; no promise counts on it.
        """
        before_ms = wait_ms - self.image_ms * len(self.images & {*ask.images})
        later = max(0, min(self.tokens, ask.max_tokens) - 1)
        known = any(key_of(*ask.images, ask.prompt[:length]) == key for length, key in self.prompts)
        for plan in self.plans:
            first = max(1.0, before_ms + plan.ttft_ms)
            times = {"ttft": first, "tpot": plan.token_ms, "total": first + later * plan.token_ms}
            late_ms = max((times[name] - ms for name, ms in promise.clauses()), default=0.0) if promise else 0.0
            outcome = Outcome(max(0.0, late_ms), plan.share, times, first - known * self.prompt_ms)
            if not outcome.late_ms:
                break
        return outcome

    def at_best(self, ask: Ask, promise: TimeBudget | None) -> Outcome:
        """Predict what a request gets on the idle replica if its prompt is as short as can be."""
        return replace(self, plans=self.shortest, images=frozenset()).outcome(ask, promise, 0.0)


class Turns:
    """When each replica's next turn comes, by what was sent there: its last report does not know of that yet."""

    def __init__(self) -> None:
        self._free_at: dict[Hashable, float] = {}  # seconds

    def wait_ms(self, replica: Hashable, now: float) -> float:
        """Return the wait for a turn from ``now`` on."""
        return max(0.0, 1000 * (self._free_at.get(replica, now) - now))

    def sent(self, replica: Hashable, offer: Offer, now: float) -> None:
        """Take note of a request that goes to a replica."""
        self._free_at[replica] = now + (self.wait_ms(replica, now) + offer.turn_ms) / 1000


def choose(ask: Ask, offers: Sequence[tuple[Offer, float] | None], now: float) -> list[int]:
    """Return the positions of the replicas to ask of those that have made an offer, the best first.

    offers: each replica's, with the wait there in milliseconds; None where it has said nothing. now: in
    epoch seconds. Whether a promise is kept after the requests that wait is for the replica to say, which
    knows when these are due; RequestFailure is raised where none could keep it for the shortest prompt if it were idle:
    400 where none could have done so at once, 503 where too much of it has passed on the way here.
    """
    given = {number: offer for number, offer in enumerate(offers) if offer is not None}
    promise = None if ask.promise is None else ask.promise.less(1000 * (now - ask.arrived))
    idle = [offer.at_best(ask, promise) for offer, _ in given.values()]
    if ask.promise is not None and idle and len(idle) == len(offers) and all(outcome.late_ms for outcome in idle):
        at_once = [offer.at_best(ask, ask.promise) for offer, _ in given.values()]
        raise _refusal(ask.promise, _earliest(idle), _earliest(at_once), now - ask.arrived)
    found = {number: offer.outcome(ask, promise, wait_ms) for number, (offer, wait_ms) in given.items()}

    def rank(number: int) -> tuple[float, float, float]:
        outcome = found[number]
        return outcome.late_ms, -outcome.share if promise else 0.0, outcome.order_ms

    return sorted(found, key=rank)


def _earliest(outcomes: Sequence[Outcome]) -> Outcome:
    return min(outcomes, key=lambda outcome: outcome.late_ms)


def _refusal(promise: TimeBudget, now: Outcome, at_once: Outcome, passed_s: float) -> RequestFailure:
    """Return the refusal of a promise. now, at_once: an idle replica's best after ``passed_s``, and without."""
    times = at_once.times if at_once.late_ms else now.times
    possible = TimeBudget.of({name: float(f"{times[name]:.3g}") for name, _ in promise.clauses()})
    if at_once.late_ms:
        message = (
            f"no replica can keep latency_budget {promise}, also when it is idle and the prompt is short: {possible} "
            "is the minimum; give it more time, or ask for a share such as 0.5"
        )
        return RequestFailure(400, REFUSED, message)
    message = (
        f"no replica can keep latency_budget {promise} any more: {1000 * passed_s:.0f} ms have passed before one was "
        f"asked, and {possible} is the minimum from here; give it more time, or ask again later"
    )
    return RequestFailure(503, OUT_OF_REACH, message, retry_after=1)
