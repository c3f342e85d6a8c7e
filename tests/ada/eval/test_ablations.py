"""The table of an ablation, counted by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from scipy import stats

from ada.eval.ablations import mean_and_reach, read_accuracies, table
from llava.errors import CheckpointError, OptionError


def sweep(path: Path, rows: list[tuple[str, float, float]]) -> Path:
    others = {"pope": {"accuracy": 0}}
    content = [{"model": m, "budget": b, "sets": {"test": {"accuracy": a}, **others}} for m, b, a in rows]
    path.write_text(json.dumps({"rows": content}))
    return path


def test_table_has_means_and_paired_differences(tmp_path) -> None:
    rows = [("plain #1", 0.5, 0.80), ("plain #2", 0.5, 0.90), ("better #2", 0.5, 0.93), ("better #1", 0.5, 0.84)]
    lines = table(read_accuracies(sweep(tmp_path / "sweep.json", rows)), "plain").splitlines()
    assert lines[0] == "| variant | budget 0.5 |"
    # t of one degree of freedom at 0.975 is 12.706; the deviations of 80, 90 and of 4, 3 are 5 sqrt 2 and 0.5 sqrt 2
    assert lines[2] == "| plain | 85.0 ± 63.5 |"
    assert lines[3] == "| better | 88.5 ± 57.2<br>+3.5 ± 6.4 |"


def test_mean_and_reach_are_students_interval(tmp_path) -> None:
    values = [91.0, 92.5, 90.1, 93.3]
    mean, reach = mean_and_reach(values)
    low, high = stats.t.interval(0.95, 3, loc=mean, scale=stats.sem(values))
    assert (mean - reach, mean + reach) == pytest.approx((low, high))
    assert math.isnan(mean_and_reach([1.0])[1])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("plain", 0.5, 0.8)], "expected VARIANT #SEED"),
        ([("plain #1", 0.5, 0.8), ("plain #1", 0.5, 0.7)], "two rows"),
        ([("other #1", 0.5, 0.8)], "--against is 'plain'"),
        ([("plain #1", 0.5, 0.8), ("other #2", 0.5, 0.8)], "the same ones"),
        ([("plain #1", 0.5, 0.8), ("other #1", 0.6, 0.8)], "the seeds none"),
    ],
)
def test_table_refuses_sweeps_without_comparable_seeds(tmp_path, rows, message) -> None:
    with pytest.raises(OptionError, match=message):
        table(read_accuracies(sweep(tmp_path / "sweep.json", rows)), "plain")


@pytest.mark.parametrize("text", ["", "[]", '{"rows": 3}', '{"rows": [{"model": "a #1", "budget": 1, "sets": {}}]}'])
def test_read_accuracies_refuses_files_of_other_programs(tmp_path, text) -> None:
    path = tmp_path / "sweep.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=r"not the sweep\.json"):
        read_accuracies(path)


def test_sweep_with_a_byte_order_mark_is_read(tmp_path):
    row = {"model": "plain #1", "budget": 0.5, "sets": {"test": {"accuracy": 0.25}}}
    (tmp_path / "sweep.json").write_text(json.dumps({"rows": [row]}), encoding="utf-8-sig")
    assert read_accuracies(tmp_path / "sweep.json") == {"plain": {0.5: {"1": 25.0}}}
