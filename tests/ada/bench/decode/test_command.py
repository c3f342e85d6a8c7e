"""The decode benchmark as a program: what it runs, and what it prints."""

import json
import re
import subprocess
import sys

import pytest
import torch

from ada.bench.__main__ import main
from ada.bench.decode import command, gpu, ways
from ada.bench.decode.llama_cpp import LLAMA_CPP
from ada.bench.decode.rounds import NEW_PLAN
from ada.bench.decode.subject import Setting

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
QUICK = ["--rounds", "1", "--seconds", "0", "--prompts", "8", "--steps", "2", "--rows", "1", "2", "--budgets", "0.5"]


def test_several_rows_have_the_first_prompts_length() -> None:
    found = command.settings_of([60, 640], [1, 4], [0.5, 1.0])
    assert found == [Setting(b, *shape) for shape in ((60, 1), (640, 1), (60, 4)) for b in (1.0, 0.5)]


@pytest.mark.parametrize(
    ("setting", "device", "names"),
    [
        (Setting(1.0, 60, 1), CPU, {ways.TRANSFORMERS, ways.ENGINE, ways.STATIC, LLAMA_CPP}),
        (Setting(1.0, 60, 1), CUDA, {ways.TRANSFORMERS, ways.ENGINE, ways.STATIC, LLAMA_CPP}),
        (Setting(1.0, 60, 4), CPU, {ways.TRANSFORMERS, ways.ENGINE, ways.STATIC}),
        (Setting(0.5, 60, 1), CPU, {ways.TRANSFORMERS, ways.ENGINE, ways.STATIC, NEW_PLAN}),
        (Setting(0.5, 60, 1), CUDA, {ways.TRANSFORMERS, ways.ENGINE, NEW_PLAN}),
    ],
)
def test_ways_of_a_setting(setting, device, names) -> None:
    runs = command.runs_of([setting], device, [LLAMA_CPP])
    assert {run.way for run in runs} == names and len(runs) == len(names)


def test_program_prints_progress_tables_goals_and_json() -> None:
    line = [sys.executable, "-m", "ada.bench", "decode", "--models", "bundled", "--kinds", "L", *QUICK]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    shown = {(one["way"], one["rows"], one["budget"]) for one in found["lines"]}
    assert shown == {
        *((way, rows, b) for way in (ways.ENGINE, ways.TRANSFORMERS, ways.STATIC) for rows in (1, 2) for b in (1, 0.5)),
        (NEW_PLAN, 1, 0.5),
    }
    assert all(one["token_ms"] > 0 and one["bandwidth_share"] > 0 for one in found["lines"])
    assert found["bandwidth_gb_s"] > 0 and found["device"] == "cpu"
    assert [goal["goal"] for goal in found["goals"]] == [
        "bundled L, 8 positions: a token over transformers",
        "bundled L, 8 positions: a token at 0.5 over full",
    ]
    assert "bundled L, warming up, 8 positions" in done.stderr and "bundled L, round 1" in done.stderr
    assert "a token over transformers" in done.stdout


def test_gpu_script_runs_end_to_end_at_toy_size(capsys) -> None:
    assert main(["gpu", "--toy"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    lines = {(one["model"], one["way"], one["rows"], one["budget"]) for one in found["lines"]}
    for kind in "HL":
        assert {(f"7B stack {kind}", ways.ENGINE, rows, b) for rows in (1, 4) for b in gpu.BUDGETS} < lines
    assert ("7B stack H", ways.STATIC, 1, 1.0) in lines and ("7B stack H", ways.TRANSFORMERS, 4, 1.0) in lines
    assert len(found["goals"]) == 12 and all(goal["measured"] is not None for goal in found["goals"])


def test_gpu_script_can_leave_out_what_takes_long_to_compile(capsys) -> None:
    assert main(["gpu", "--toy", "--no-static"]) == 0
    found = {one["way"] for one in json.loads(capsys.readouterr().out.splitlines()[-1])["lines"]}
    assert ways.TRANSFORMERS in found and ways.STATIC not in found


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rows", "0"], "--rows"),
        (["--budgets", "1.5"], r"--budgets are \[1.5\]"),
        (["--peer", "llama.cpp", "--device", "cuda"], "--peer llama.cpp runs on a CPU"),
        (["--device", "tpu"], "--device is 'tpu'"),
    ],
)
def test_bad_value_is_a_user_error(flags, message, capsys) -> None:
    assert main(["decode", *flags]) == 2
    assert re.search(message, capsys.readouterr().err)
