"""The gated step is each row's masked model, whatever the plans: on a GPU, and on a CPU under Triton's interpreter.

The interpreter has to be chosen before Triton is imported, so that another process runs these tests on the CPU.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fixtures import gated_checks

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
FLOAT, HALF, BRAIN = torch.float32, torch.float16, torch.bfloat16

CASES = {
    "1-row": {"dtype": FLOAT, "rows": 1, "tokens": 2},
    "3-rows": {"dtype": FLOAT, "rows": 3, "tokens": 2},
    "bfloat16": {"dtype": BRAIN, "rows": 1},
    "bfloat16-8-rows-grouped-queries": {"dtype": BRAIN, "rows": 8, "kv_heads": 2},
    "float16-16-rows": {"dtype": HALF, "rows": 16},
    "float16-groups-of-43": {"dtype": HALF, "rows": 1, "neurons": 172},
    "float16-groups-of-344": {"dtype": HALF, "rows": 1, "neurons": 688, "kv_heads": 2},
    "qwen2-7-queries-a-key": {"dtype": FLOAT, "rows": 2, "family": "qwen2", "heads": 14, "kv_heads": 2, "hidden": 112},
    "qwen2-1-row": {"dtype": FLOAT, "rows": 1, "family": "qwen2", "heads": 4, "kv_heads": 2},
    "columns-in-shares": {"dtype": FLOAT, "rows": 2, "shortest": 36},
    "columns-in-shares-1-row": {"dtype": FLOAT, "rows": 1, "shortest": 38},
    "biases-everywhere": {"dtype": FLOAT, "rows": 3, "bias": True},
    "biases-everywhere-1-row": {"dtype": FLOAT, "rows": 1, "bias": True},
}


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.skipif(INTERPRETED, reason="this is that process")
def test_all_checks_pass_under_the_interpreter(root: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not gpu", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert f"{len(CASES) + 13} passed, 1 skipped" in done.stdout, done.stdout[-2000:]


@pytest.fixture(params=[*["cpu"][: int(INTERPRETED)], pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest):
    """The device of the kernels; no gradients are wanted on it."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    with torch.no_grad():
        yield request.param
    torch.set_float32_matmul_precision(precision)


@pytest.fixture
def tiling(device: str):
    """Blocks as large as a tiny decoder on a CPU, which are fewer to interpret; on a GPU those that it is used with."""
    return gated_checks.small_tiling(32, 32) if device == "cpu" else None


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_rows_are_their_masked_models_and_read_nothing_that_is_off(device, tiling, case) -> None:
    gated_checks.check_rows(device, tiling=tiling, **case)


@pytest.mark.parametrize(("rows", "dtype"), [(1, FLOAT), (3, FLOAT), (2, BRAIN)])
def test_decoders_of_several_blocks_are_their_masked_models(device, rows, dtype) -> None:
    gated_checks.check_rows(device, dtype, rows, tiling=gated_checks.small_tiling(16, 16))


def test_one_step_serves_plan_after_plan(device, tiling) -> None:
    gated_checks.check_plan_after_plan(device, tiling)


def test_layers_that_read_fewer_columns_attend_to_those(device, tiling) -> None:
    gated_checks.check_late_tokens(device, tiling)


def test_rows_that_stay_do_not_notice_who_joins_or_leaves(device, tiling) -> None:
    gated_checks.check_join_and_leave(device, tiling)


def test_rows_go_on_where_slots_and_positions_grow(device, tiling) -> None:
    gated_checks.check_growth(device, tiling)


def test_rows_in_other_slots_than_the_first_are_refused(device, tiling) -> None:
    gated_checks.check_order(device, tiling)


def test_step_is_freed_with_its_last_use(device) -> None:
    gated_checks.check_step_is_freed(device)


def test_slots_that_hold_all_heads_are_read_by_the_plan(device, tiling) -> None:
    gated_checks.check_all_heads_held(device, tiling)


@pytest.mark.parametrize(("dtype", "rows"), [(FLOAT, 1), (BRAIN, 2)])
def test_bytes_with_scales_are_their_products(device, tiling, dtype, rows) -> None:
    gated_checks.check_bytes(device, dtype, rows, tiling)


def test_rows_go_on_as_in_the_engines_torch_step(device, make_llava, pixels) -> None:
    model = make_llava("H", heads=8, key_value_heads=4, head_dim=8).to(device)
    prompt = torch.tensor([[1, -200, 60, 7, 9]], device=device)
    alone = model.embed(prompt, images=pixels[:1].to(device))
    batch = model.embed(torch.cat([prompt, prompt.flip(1)]), images=pixels[:2].to(device))
    tiling = gated_checks.small_tiling(64, 64) if device == "cpu" else None
    gated_checks.check_engine(device, model, [(alone, [0.6]), (alone, [0.85]), (batch, [0.6, 0.8])], tiling)
