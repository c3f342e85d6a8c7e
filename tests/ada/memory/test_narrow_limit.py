"""How much narrow layers may take: the flag, and the default."""

import argparse
import copy

import pytest
import torch

from ada.execution import narrow_cache
from ada.memory import narrow_limit
from ada.memory.narrow_limit import DefaultLimit, add_narrow_limit_flag, narrow_limit_of
from llava.errors import OptionError
from llava.model.int8_linear import quantise_int8

MIB, GIB = 2**20, 2**30


@pytest.mark.parametrize(
    ("tunable", "free", "limit"),
    [
        (6 * GIB, 100 * GIB, 6 * GIB),  # one copy of the tunable layers holds any one plan
        (6 * GIB, 10 * GIB, 10 * GIB // 4),  # but the KV cache needs memory, too
        (3 * MIB, 10 * GIB, 256 * MIB),  # a small model keeps many plans
        (3 * MIB, 100 * MIB, 25 * MIB),
        (3 * MIB, 0, 0),
        (6 * GIB, None, 6 * GIB),  # a device that does not say
    ],
)
def test_default_goes_by_the_tunable_layers_and_by_what_is_free(tunable, free, limit) -> None:
    assert DefaultLimit(tunable).of(free) == limit


def test_default_counts_the_weights_as_they_are_once_loaded(make_llava, monkeypatch) -> None:
    monkeypatch.setattr(narrow_cache, "free_bytes", lambda device: 100 * GIB)
    monkeypatch.setattr(narrow_limit, "MIN_BYTES", 1)
    model = make_llava("H", layers=5, prefix=2)
    rounded = copy.deepcopy(model)
    assert quantise_int8(rounded)
    weights = 3 * (4 * 64 * 64 + 3 * 64 * 100)  # of three tunable layers
    cpu = torch.device("cpu")
    assert (model.narrow_cache.limit_on(cpu), rounded.narrow_cache.limit_on(cpu)) == (4 * weights, weights)


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "much", "", -0.5, float("nan"), True])
def test_bad_limits_are_user_errors_that_name_the_flag(value) -> None:
    with pytest.raises(OptionError, match=r"--narrow-cache-gb is .* expected a number of GB from 0 up") as raised:
        narrow_limit_of({"narrow_cache_gb": value})
    assert repr(value) in str(raised.value)


@pytest.mark.parametrize(("value", "limit"), [("0", 0), ("2.5", 2_500_000_000), (0.001, 1_000_000), (None, None)])
def test_limits_are_gigabytes_in_bytes(value, limit) -> None:
    assert narrow_limit_of({"narrow_cache_gb": value}) == limit


@pytest.mark.parametrize("text", ["-1", "nan", "much"])
def test_flag_refuses_bad_texts(text, capsys) -> None:
    parser = argparse.ArgumentParser()
    add_narrow_limit_flag(parser)
    assert parser.parse_args([]).narrow_cache_gb is None
    with pytest.raises(SystemExit):
        parser.parse_args([f"--narrow-cache-gb={text}"])
    assert f"--narrow-cache-gb: {text!r}; expected a number of GB" in capsys.readouterr().err
