"""Promises of time in a queue: earliest due first, each with the engine's time that it takes at the minimum.

The engine is taken to work on one request after the other. Of requests whose work is all there, an order by due times
keeps all promises where any order does (Jackson, 1955), so whether it does says whether one more may be accepted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

UNPROMISED_DUE_S = 5.0  # after its arrival a request without a promise is due in the queue's order: none waits forever


@dataclass(frozen=True)
class Pace:
    """What a token after the first may take on the average, in seconds.

    minimum_s: what it takes at the minimum in a running batch of so many rows.
    """

    token_s: float
    minimum_s: Callable[[int], float]


@dataclass(frozen=True)
class Promise:
    """What a request was promised, in seconds.

    due_s: from its arrival until all of its work is to be done, infinite where only its pace is promised; work_s: of
    the engine's time that it takes at the minimum; first_s: of these, until its first token.
    """

    due_s: float
    work_s: float
    first_s: float
    pace: Pace | None = None

    @classmethod
    def of(
        cls, first_s: float, work_s: float, ttft_s: float | None, total_s: float | None, pace: Pace | None = None
    ) -> Promise | None:
        """Return the promise of a first token within ``ttft_s`` and an end within ``total_s``; None without any."""
        due = [] if ttft_s is None else [ttft_s - first_s + work_s]
        due += [] if total_s is None else [total_s]
        return cls(min(due, default=math.inf), work_s, first_s, pace) if due or pace is not None else None

    @property
    def is_due(self) -> bool:
        """Whether its work is to be done by a certain time."""
        return not math.isinf(self.due_s)


@dataclass(frozen=True, eq=False)
class Job:
    """A request that waits. due: by the clock, in seconds; promised: whether it is of no use later."""

    due: float
    work_s: float
    promised: bool = True


@dataclass(frozen=True)
class Schedule:
    """What comes of jobs in the order of their due times.

    kept: promised jobs that are in time. ends: when each job's work is done, by job. spare_s: by how much all of it may
    begin later and still keep as many; infinite where none is promised.
    """

    kept: int
    ends: dict[Job, float]
    spare_s: float


def schedule(jobs: Iterable[Job], start: float) -> Schedule:
    """Work on jobs from ``start`` on. One that cannot be in time is left out, as its client gets a refusal."""
    at, kept, ends, spare_s = start, 0, {}, math.inf
    for job in sorted(jobs, key=lambda job: job.due):
        ends[job] = at + job.work_s
        if job.promised and ends[job] > job.due:
            continue
        at = ends[job]
        if job.promised:
            kept, spare_s = kept + 1, min(spare_s, job.due - at)
    return Schedule(kept, ends, spare_s)


def turn(jobs: Sequence[Job], now: float, running_s: float) -> int:
    """Return the position of the job to work on next, of ``jobs`` in the order of their due times.

    It is the first one, which one without a promise gives up, until it is due, where fewer promises would be kept after
    it: it may have come after they were made. running_s: of work that the engine has left, in seconds.
    """
    first, start = jobs[0], now + running_s
    promised = [job for job in jobs if job.promised]
    if first.promised or first.due <= now or not promised:
        return 0
    kept = schedule(promised, start).kept
    return jobs.index(promised[0]) if schedule(promised, start + first.work_s).kept < kept else 0
