"""The program ``python -m ada.cost``."""

import json
import subprocess
import sys

import pytest

from ada.cost.__main__ import main


def test_program_prints_tables_or_json(root):
    command = [sys.executable, "-m", "ada.cost", "--hardware", "rtx 4090", "--latency-budget", "60%"]
    shown = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert shown.returncode == 0 and "vision_tower" in shown.stdout and "peak memory" in shown.stdout, shown.stderr
    printed = subprocess.run([*command, "--json"], cwd=root, capture_output=True, text=True)
    figures = json.loads(printed.stdout)
    assert figures["hardware"] == "RTX-4090" and figures["executed_share"] == pytest.approx(0.59, abs=0.01)
    totals = figures["totals"]
    assert totals["answer_s"] == pytest.approx(totals["time_to_first_token_s"] + 31 * totals["token_s"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--hardware", "B200"], "--hardware is 'B200'; expected one of V100"),
        (["--model", "gpt"], "--model is 'gpt'"),
        (["--latency-budget", "1.5"], "1.5"),
        (["--latency-budget", "0ms"], "0ms"),
        (["--latency-budget=-5ms"], "-5ms"),
        (["--latency-budget", "3 parsecs"], "3 parsecs"),
        (["--latency-budget", "1ms"], "to the first token here"),
        (["--images", "-1"], "--images is -1"),
        (["--weight-bits", "8"], "need --as-published"),
        (["--prompt-tokens", "0"], "--prompt-tokens is 0"),
        (["--gen-tokens", "-1"], "--gen-tokens is -1"),
        (["--plan", "nowhere.json"], "nowhere.json"),
        (["--as-published", "--hardware", "B200"], "not in the published table"),
    ],
)
def test_bad_input_is_a_user_error(flags, message, capsys):
    assert main(flags) == 2
    assert message in capsys.readouterr().err


def test_model_larger_than_the_memory_is_reported(capsys):
    assert main(["--model", "llama-13b", "--hardware", "T4"]) == 0
    assert "more than the 16 GB of T4" in capsys.readouterr().out
