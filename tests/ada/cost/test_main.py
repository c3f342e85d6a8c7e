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
        (["--batch-size", "2"], "--batch-size that or --memory"),
        (["--weight-bits", "8", "--memory"], "need --as-published"),
        (["--memory", "--as-published"], "--memory and --as-published"),
        (["--memory", "--latency-budget", "0.6"], "leave --latency-budget and --plan out"),
        (["--memory", "--plan", "plan.json"], "leave --latency-budget and --plan out"),
        (["--narrow-cache-gb", "1"], "--narrow-cache-gb needs --memory"),
        (["--memory", "--batch-size", "0"], "--batch-size is 0"),
        (["--memory", "--hardware", "B200"], "--hardware is 'B200'"),
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


def test_memory_is_a_table_or_json_in_its_own_process(root):
    command = [sys.executable, "-m", "ada.cost", "--memory", "--hardware", "rtx 4090", "--batch-size", "2"]
    shown = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert shown.returncode == 0 and "narrow layers" in shown.stdout and "KV cache of a row" in shown.stdout
    assert shown.stderr == "" and "weights stored in" in shown.stdout and "4 bits" in shown.stdout
    limited = [*command, "--narrow-cache-gb", "1.5", "--json"]
    found = json.loads(subprocess.run(limited, cwd=root, capture_output=True, text=True).stdout)
    stored = found["by_storage"]["16 bits"]
    narrow = {name: one["narrow_layers"] for name, one in found["by_storage"].items()}
    assert narrow["16 bits"] == narrow["8 bits"] == 1_500_000_000 and narrow["4 bits"] == 0
    assert stored["kv_cache"] == 2 * 768 * 2 * 32 * 4096 * 2, "two rows of 672 positions, in steps of 256"
    parts = ("narrow_layers", "kv_cache", "activations")
    assert stored["total"] == sum(stored["weights"].values()) + sum(stored[part] for part in parts)
    assert stored["fits_in_memory"] and not found["by_storage"]["float32"]["fits_in_memory"]


def test_memory_of_a_checkpoint_that_reads_fewer_image_tokens(root, capsys):
    flags = ["--memory", "--model", str(root / "ada" / "checkpoints" / "shapes-H"), "--prompt-tokens", "300", "--json"]
    found = []
    for tokens in ("all", "1"):
        assert main([*flags, "--image-tokens", tokens]) == 0
        found.append(json.loads(capsys.readouterr().out.splitlines()[-1])["by_storage"]["float32"])
    assert found[1]["activations"] < found[0]["activations"] and found[1]["kv_cache"] <= found[0]["kv_cache"]
    assert found[1]["weights"] == found[0]["weights"]


@pytest.mark.parametrize("value", ["-1", "nan", "much"])
def test_bad_limit_is_a_user_error_that_names_the_flag(value, capsys):
    with pytest.raises(SystemExit) as left:
        main(["--memory", f"--narrow-cache-gb={value}"])
    assert left.value.code == 2 and f"--narrow-cache-gb: {value!r}" in capsys.readouterr().err
