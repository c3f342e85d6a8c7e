"""The ways to run prompts: each runs the plan of its budget, and the same steps."""

import pytest
import torch

from ada.bench.decode import ways
from ada.bench.decode.ways import RunTimes, Stamps
from ada.engine.engine_rows import EngineRows

MAKE = {ways.ENGINE: ways.engine, ways.TRANSFORMERS: ways.transformers, ways.STATIC: ways.transformers_static}


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize(("kind", "rows"), [("H", 1), ("H", 3), ("L", 1)])
def test_way_runs_the_share_of_its_budget_for_each_row(make_subject, name, kind, rows) -> None:
    subject = make_subject(kind)
    times = MAKE[name](subject.model, 3)(torch.randint(3, 50, (rows, 12)), 0.75)
    assert [plan.share for plan in times.plans] == [0.75] * rows
    assert 0 < times.first_ms < times.second_ms and times.token_ms > 0


def test_engine_runs_as_many_decode_steps_as_asked(make_subject, monkeypatch) -> None:
    subject, seen = make_subject("H"), []
    step = EngineRows.step
    monkeypatch.setattr(EngineRows, "step", lambda rows, tokens: seen.append(len(tokens)) or step(rows, tokens))
    ways.engine(subject.model, 5)(torch.randint(3, 50, (2, 12)), 1.0)
    assert seen == [2] * 5


def test_times_are_milliseconds_between_stamps() -> None:
    assert RunTimes.of(10.0, 10.5, 10.75, 12.5, 4) == RunTimes(first_ms=500, second_ms=750, token_ms=500)


def test_stamps_keep_the_first_two_tokens_and_the_last_and_stop_no_row() -> None:
    stamps = Stamps(5)
    for _ in range(5):
        assert not stamps(torch.zeros(2, 3), None).any()
    assert sorted(stamps.at) == [1, 2, 5]
