"""A sweep's settings refuse numbers out of range."""

from __future__ import annotations

from pathlib import Path

import pytest

from ada.eval.settings import FrontierSettings, SweepSettings
from llava.errors import OptionError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"max_new_tokens": 0}, "--max-new-tokens 0"),
        ({"timed_questions": -1}, "--timed-questions is -1"),
    ],
)
def test_settings_refuse_numbers_out_of_range(changes, message):
    with pytest.raises(OptionError, match=message):
        SweepSettings(**changes)


@pytest.mark.parametrize("settings", [SweepSettings, FrontierSettings])
@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_settings_refuse_a_bad_limit_of_narrow_layers(settings, value):
    with pytest.raises(OptionError, match=f"--narrow-cache-gb is {value}; expected a number of GB"):
        settings(narrow_cache_gb=value)


def test_settings_write_to_the_default_folder_without_out():
    assert SweepSettings().folder == Path("runs/sweep")
    assert SweepSettings(out=Path("other")).folder == Path("other")
