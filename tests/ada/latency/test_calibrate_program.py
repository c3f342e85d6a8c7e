"""The programs that calibrate: ``python -m ada.calibrate``, and any other when it first meets a time budget."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest
from fixtures.known_device import PROFILE

from ada.latency import calibrate, ready
from ada.latency.calibrate import main as calibrate_main
from ada.latency.device_profile import DeviceFingerprint
from llava.model.loaded_model import open_model


def ask(root, checkpoint, image_file, cache, *flags):
    command = [sys.executable, "-m", "llava.eval.run_llava", "--model-path", str(checkpoint), "--query", "w5"]
    command += ["--report", "json", "--image-file", str(image_file), "--max_new_tokens", "3", "--device", "cpu", *flags]
    env = {**os.environ, "XDG_CACHE_HOME": str(cache), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)


def test_run_llava_calibrates_once_or_refuses(root, adaptive_checkpoint, image_file, tmp_path) -> None:
    refused = ask(root, adaptive_checkpoint, image_file, tmp_path, "--latency-budget", "9s", "--no-auto-calibrate")
    assert refused.returncode == 2 and "there is no calibration" in refused.stderr, refused.stderr
    assert "python -m ada.calibrate" in refused.stderr and not list(tmp_path.rglob("*.json"))
    first = ask(root, adaptive_checkpoint, image_file, tmp_path, "--latency-budget", "9s")
    assert first.returncode == 0 and "A short calibration runs first" in first.stderr, first.stderr
    assert len(list(tmp_path.rglob("*.json"))) == 1
    again = ask(root, adaptive_checkpoint, image_file, tmp_path, "--latency-budget", "9s", "--no-auto-calibrate")
    assert again.returncode == 0 and "calibration" not in again.stderr, again.stderr
    metadata = json.loads(again.stdout.splitlines()[-1])
    assert metadata["requested_ms"] == 9000 and metadata["granted"] == 1 and 0 < metadata["ttft_p95_ms"] <= 9000


def test_calibrate_program_prints_plots_and_stores(model, adaptive_checkpoint, monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    plot = tmp_path / "plot.png"
    flags = ["--model-path", str(adaptive_checkpoint), "--device", "cpu", "--plot", str(plot)]
    assert calibrate_main([*flags, "--points", "16"]) == 0
    shown = capsys.readouterr().out
    assert "prefill: error median" in shown and "attention" in shown
    assert plot.stat().st_size > 5000 and DeviceFingerprint.of(model).path.exists()
    assert ready.stored_predictor(model).profile.date
    assert calibrate_main([*flags, "--points", "3"]) == 2


@pytest.mark.parametrize("calibrated", [False, True])
def test_program_with_8_bit_weights_finds_the_calibration_that_was_made_with_them(
    adaptive_checkpoint, monkeypatch, tmp_path, calibrated
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(
        calibrate,
        "calibrate",
        lambda model, *_, **__: (dataclasses.replace(PROFILE, surroundings=DeviceFingerprint.of(model)), []),
    )
    path = str(adaptive_checkpoint)
    assert calibrate_main(["--model-path", path, "--device", "cpu", *(["--load-8bit"] if calibrated else [])]) == 0
    for load_8bit in (False, True):
        loaded = open_model({"model_path": path, "device": "cpu", "load_8bit": load_8bit})
        assert ("ttft_predictor" in loaded.options) == (load_8bit == calibrated)
