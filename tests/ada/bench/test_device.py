"""The device of a benchmark, and the time that passes on it."""

import argparse

import pytest
import torch

from ada.bench import device
from llava.errors import OptionError


def test_absent_device_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(OptionError, match="--device is 'cuda'"):
        device.device_named("cuda")


def test_flag_has_the_default_of_its_benchmark() -> None:
    parser = argparse.ArgumentParser()
    device.add_device_flag(parser, default="cuda")
    assert parser.parse_args([]).device == "cuda" and parser.parse_args(["--device", "cpu"]).device == "cpu"


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_gpu_is_waited_for_before_and_after_a_call(monkeypatch, kind) -> None:
    seen: list[str] = []
    monkeypatch.setattr(getattr(torch, kind), "synchronize", lambda *_: seen.append("waits"))
    assert device.seconds_of(lambda: seen.append("runs"), torch.device(kind), repeats=2) >= 0
    assert seen == ["waits", "runs", "runs", "waits"]


def test_seconds_are_those_of_one_call(monkeypatch) -> None:
    monkeypatch.setattr(device.time, "perf_counter", iter([10.0, 16.0]).__next__)
    assert device.seconds_of(lambda: None, torch.device("cpu"), repeats=3) == 2.0
