"""The files of a sweep that other programs read, with any JSON value in any place: a result, or a user error."""

from __future__ import annotations

import contextlib
import json

import pytest
from fixtures.odd_values import JSON, VALUES, paths_of, with_value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ada.eval.ablations import read_accuracies, table
from ada.eval.compare import compare
from llava.errors import LlavaError

MARKS = {
    "sets": {"test": {"title": "Test", "fingerprint": "f", "kinds": ["a", "b"]}},
    "runs": [{"model": "H", "planner": "even", "budget": 0.5, "right": {"test": "10"}}],
}
SWEEP = {
    "rows": [
        {"model": f"{name} #{seed}", "budget": 0.5, "sets": {"test": {"accuracy": 0.5}}}
        for name in ("plain", "other")
        for seed in (1, 2)
    ]
}


@pytest.fixture(scope="module")
def reads(tmp_path_factory):
    """``reads(name, content)``: reads a sweep's file of this content as its program does."""
    folder = tmp_path_factory.mktemp("sweep")
    for name in ("one", "other"):
        (folder / name).mkdir()

    def read(name, content):
        if name == "sweep.json":
            (folder / name).write_text(json.dumps(content))
            return table(read_accuracies(folder / name), "plain")
        (folder / "one" / name).write_text(json.dumps(content))
        (folder / "other" / name).write_text(json.dumps(MARKS))
        return compare((folder / "one", folder / "other"))

    return read


FILES = {"marks.json": MARKS, "sweep.json": SWEEP}


@pytest.mark.parametrize("name", FILES)
def test_an_odd_value_in_any_place_is_a_user_error_or_gives_a_table(reads, name):
    assert "|" in reads(name, FILES[name])
    for at in paths_of(name, FILES[name]):
        for value in VALUES:
            with contextlib.suppress(LlavaError):
                assert "|" in reads(name, with_value(FILES[name], at, value))


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_in_any_place_is_a_user_error_or_gives_a_table(reads, name, data):
    content = with_value(FILES[name], data.draw(st.sampled_from(paths_of(name, FILES[name]))), data.draw(JSON))
    with contextlib.suppress(LlavaError):
        assert "|" in reads(name, content)
