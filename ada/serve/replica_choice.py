"""Chooses a request's replica: the one that gives the best share within its promise, and knows most of its prompt."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ada.budget import TimeBudget, read_budget
from ada.latency.plan_times import PlanTimes
from llava.errors import OptionError
from llava.serve.protocol.errors import RequestFailure

REFUSED = "promise_not_possible"  # reason of a refusal, for programs
QUANTILE, LAST, FORGET_S = 0.95, 50, 30.0  # of the last answers' slowness


def key_of(*texts: str) -> str:
    """Return a short hash by which an image's base64, or a prompt after its images' keys, is known again."""
    return hashlib.blake2b("\n".join(texts).encode(errors="surrogatepass"), digest_size=12).hexdigest()


@dataclass
class Ask:
    """What the router reads of a request, and writes on it.

    promise: its budget in time, if any. images: their keys. arrived: in epoch seconds. slowness: factor of predicted
    times to first token. expected_ms: the chosen replica's, before this factor.
    """

    promise: TimeBudget | None
    images: tuple[str, ...]
    prompt: str
    max_tokens: int
    arrived: float
    slowness: float = 1.0
    expected_ms: float | None = None

    @classmethod
    def of(cls, fields: Mapping[str, Any], arrived: float, slowness: float) -> Ask:
        """Read the fields of a ``GenerationBody``. What is malformed is no promise: the replica says what is wrong."""
        try:
            budget = read_budget(fields.get("latency_budget"))
        except OptionError:
            budget = None
        promise, images = budget if isinstance(budget, TimeBudget) else None, tuple(map(key_of, fields["images"]))
        return cls(promise, images, fields["prompt"], fields["max_new_tokens"], arrived, slowness)


class Slowness:
    """How much later first tokens came than predicted: what else the machines do, and the way of the answer."""

    def __init__(self) -> None:
        self._ratios: deque[tuple[float, float]] = deque(maxlen=LAST)  # epoch seconds, measured over expected

    def observe(self, ask: Ask, now: float) -> None:
        """Learn from a first token that is there."""
        if ask.expected_ms:
            self._ratios.append((now, 1000 * (now - ask.arrived) / ask.expected_ms))

    def factor(self, now: float) -> float:
        """Return what most of the last answers were below; 1 where there were none lately, so that one is tried."""
        ratios = sorted(ratio for then, ratio in self._ratios if now - then < FORGET_S)
        return max(1.0, ratios[int(QUANTILE * len(ratios))]) if ratios else 1.0


class Outcome(NamedTuple):
    """What a request would get: whether its promise is kept, by which share; milliseconds."""

    kept: bool
    share: float
    times: Mapping[str, float]  # of each clause
    expected_ms: float  # to the first token, before ``slowness``
    order_ms: float  # by which replicas that give the same are ordered


@dataclass(frozen=True)
class Offer:
    """What a replica could give to a prompt as its last ones were.

    plans: from all units down to none. tokens: that an answer is planned with. turn_ms: from one request's turn to the
    next one's; image_ms: of encoding an image; prompt_ms: of a prompt in the prefix layers. images: keys of those whose
    features are known; prompts: (characters, key) of those read last.
    """

    plans: Sequence[PlanTimes]
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
            late = ask.slowness * first
            times = {"ttft": late, "tpot": plan.token_ms, "total": late + later * plan.token_ms}
            kept = promise is None or all(times[name] <= allowed for name, allowed in promise.clauses())
            outcome = Outcome(kept, plan.share, times, first, first - known * self.prompt_ms)
            if kept:
                break
        return outcome


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
    """Return the positions of the replicas to ask, the best first, and note what is expected of that one.

    offers: each replica's, with the wait there in milliseconds; None where it has said nothing: it is asked last, and
    speaks for itself. now: epoch seconds. Raises RequestFailure where no replica can keep the promise.
    """
    promise = None if ask.promise is None else ask.promise.less(1000 * (now - ask.arrived))
    given = {number: offer for number, offer in enumerate(offers) if offer is not None}
    found = {number: offer.outcome(ask, promise, wait_ms) for number, (offer, wait_ms) in given.items()}
    silent = [number for number in range(len(offers)) if number not in given]
    chosen = [number for number, outcome in found.items() if outcome.kept]
    if ask.promise is not None and offers and not (chosen or silent):
        idle = [offer.outcome(ask, ask.promise, 0.0) for offer, _ in given.values()]
        raise _refusal(ask.promise, [*found.values()], idle)
    chosen.sort(key=lambda number: (-found[number].share if promise else 0.0, found[number].order_ms))
    ask.expected_ms = found[chosen[0]].expected_ms if chosen else None
    return chosen + silent


def _refusal(promise: TimeBudget, now: Sequence[Outcome], idle: Sequence[Outcome]) -> RequestFailure:
    """Return the failure of a promise that nobody can keep: 503 for now, 400 where an idle replica cannot, either."""
    later, names = any(outcome.kept for outcome in idle), [name for name, _ in promise.clauses()]
    best = min(now if later else idle, key=lambda outcome: [outcome.times[name] for name in names])
    possible = TimeBudget.of({name: float(f"{best.times[name]:.3g}") for name in names})
    when = "now, or ask again later" if later else "where it is idle"
    message = f"no replica can keep latency_budget {promise}; {possible} is possible {when}"
    return RequestFailure(503 if later else 400, REFUSED, message, retry_after=1 if later else None)
