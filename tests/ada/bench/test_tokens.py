"""The benchmark of image tokens: its cases take the share that they report, and its program prints them."""

import json

import pytest
import torch

from ada.bench import tokens
from ada.bench.__main__ import main
from ada.bench.models import Models


@torch.inference_mode()
@pytest.mark.parametrize(
    ("case", "read", "late"),
    [
        (tokens.Case("all"), 24, 24),
        (tokens.Case("25%", "divprune"), 12, 12),
        (tokens.Case("all/25%", "fastv"), 24, 12),
        (tokens.Case("50%/25%", "salient/fastv", 0.5), 16, 12),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_case_runs_the_positions_and_units_that_it_reports(small_shapes, case, read, late) -> None:
    model = Models.make(8).ada["L"]
    seen: list[tuple[int, int]] = []
    for index, layer in enumerate(model.model.layers):
        layer.mlp.register_forward_pre_hook(lambda _, given, index=index: seen.append((index, given[0].shape[1])))
    prompt = tokens.Prompt(model, text=8, image=16)
    assert prompt.prefill(prompt.batch(), case) > 0
    assert len(seen) == case.units * 8
    latency_token = 1
    assert {width for index, width in seen if index < tokens.FASTV_LAYER} == {read + latency_token}
    assert {width for index, width in seen if index >= tokens.FASTV_LAYER} == {late + latency_token}
    assert case.share <= case.budget


def test_program_prints_a_table_and_json(small_shapes, capsys) -> None:
    sizes = ["tokens", "--layers", "8", "--text", "8", "--image", "16", "--rounds", "2", "--budget", "0.4"]
    assert main(sizes) == 0
    shown = capsys.readouterr().out
    figures = json.loads(shown.strip().splitlines()[-1])
    names = [row["case"] for row in figures["cases"]]
    assert names[:2] == ["all", "all, budget 0.5"] and "25%/11% salient/learned, budget 0.4" in names
    assert all(row["ratio"] > 0 and row["milliseconds"] > 0 for row in figures["cases"])
    assert figures["cases"][0]["share"] == 1
    assert all(milliseconds > 0 for milliseconds in figures["selectors_ms"].values())
    assert set(figures["selectors_ms"]) == {"random", "grid", "salient", "divprune", "fastv", "learned"}
