"""The benchmark of 8-bit weights: what it compares computes the same, and its figures are of those runs."""

import json

import pytest
import torch

from ada.bench import quantized
from ada.bench.__main__ import main
from ada.execution.layer_weights import projections
from llava.model.int8_linear import Int8Linear


def test_stacks_compute_the_same_within_the_rounding(small_shapes) -> None:
    plain, rounded = quantized.make_stacks(2).values()
    assert all(isinstance(one, Int8Linear) for layer in rounded.model.layers for one in projections(layer))
    assert not any(isinstance(one, Int8Linear) for layer in plain.model.layers for one in projections(layer))
    with torch.no_grad():
        ours, theirs = (one(torch.arange(3, 40)[None], latency_budget=1.0).logits.float() for one in (rounded, plain))
    assert 0 < (ours - theirs).norm() < 0.05 * theirs.norm()


def test_ratios_are_of_the_same_round_and_the_dense_one() -> None:
    plain, rounded = quantized.Case(None, 0.5, [4, 8, 6], [2, 2, 4]), quantized.Case(None, 0.5, [2, 2, 6], [1, 1, 1])
    dense = quantized.Case(None, 1.0, [], [4, 10, 5])
    found = quantized.line(0.5, plain, rounded, dense)
    assert found["prefill"] == {"bfloat16_ms": 6, "int8_ms": 2, "ratio": 0.5}
    assert found["decode"] == {"bfloat16_ms": 2, "int8_ms": 1, "ratio": 0.5}
    assert found["decode_over_dense_bfloat16"] == 0.2


def test_program_prints_a_line_for_each_budget(small_shapes, capsys) -> None:
    assert main("quantized --layers 2 --positions 5 --rounds 2 --decode-steps 2 --budgets 0.75 0.5".split()) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [one["budget"] for one in report["budgets"]] == [1, 0.75, 0.5]
    assert all(one[phase]["ratio"] > 0 for one in report["budgets"] for phase in ("prefill", "decode"))


@pytest.mark.parametrize("flags", ["--layers 1", "--rounds 0", "--budgets 1.5"])
def test_numbers_that_cannot_be_timed_are_named(flags, capsys) -> None:
    assert main(["quantized", *flags.split()]) == 2
    assert flags.split()[0] in capsys.readouterr().err
