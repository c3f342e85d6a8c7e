"""Promises in a queue: against every order in which they could be kept."""

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from llava.serve.engine.promise import Job, Promise, schedule, turn

seconds = st.integers(0, 12).map(float)
jobs = st.lists(st.builds(Job, due=seconds, work_s=st.integers(1, 4).map(float), promised=st.booleans()), max_size=5)


def keeps_all(order, start: float) -> bool:
    ends = itertools.accumulate((job.work_s for job in order), initial=start)
    return all(end <= job.due or not job.promised for job, end in zip(order, list(ends)[1:], strict=True))


def can_keep_all(jobs, start: float) -> bool:
    return any(keeps_all(order, start) for order in itertools.permutations(jobs))


@given(jobs.map(lambda jobs: [job for job in jobs if job.promised]), seconds)
def test_schedule_keeps_every_promise_where_any_order_does(jobs, start) -> None:
    assert (schedule(jobs, start).kept == len(jobs)) == can_keep_all(jobs, start)


@given(jobs, seconds)
def test_schedule_may_begin_later_by_what_is_spare_and_no_more(jobs, start) -> None:
    found = schedule(jobs, start)
    if math.isinf(found.spare_s):
        assert found.kept == 0
        return
    assert schedule(jobs, start + found.spare_s).kept == found.kept
    in_order = sorted(jobs, key=lambda job: job.due)
    kept = [job for job in in_order if not job.promised or found.ends[job] <= job.due]
    assert keeps_all(kept, start + found.spare_s) and not keeps_all(kept, start + found.spare_s + 0.5)


@given(jobs, seconds)
def test_schedule_says_when_each_job_ends(jobs, start) -> None:
    found, at = schedule(jobs, start), start
    for job in sorted(jobs, key=lambda job: job.due):
        assert found.ends[job] == at + job.work_s
        at = found.ends[job] if not job.promised or found.ends[job] <= job.due else at


@given(jobs.filter(bool), seconds, st.integers(0, 3).map(float))
def test_turn_is_the_firsts_unless_promises_would_be_broken_for_one_that_is_not_yet_due(jobs, now, running_s) -> None:
    jobs = sorted(jobs, key=lambda job: job.due)
    first, promised = jobs[0], [job for job in jobs if job.promised]
    number, start = turn(jobs, now, running_s), now + running_s
    if first.promised or first.due <= now or not promised:
        assert number == 0
    elif can_keep_all(promised, start):
        assert jobs[number] is (first if can_keep_all(promised, start + first.work_s) else promised[0])


def test_promise_of_a_first_token_leaves_time_for_the_tokens_after_it() -> None:
    assert Promise.of(0.2, 1.0, 0.5, None) == Promise(1.3, 1.0, 0.2)
    assert Promise.of(0.2, 1.0, None, 2.0) == Promise(2.0, 1.0, 0.2)
    assert Promise.of(0.2, 1.0, 0.5, 1.1) == Promise(1.1, 1.0, 0.2)
    assert Promise.of(0.2, 1.0, None, None) is None
