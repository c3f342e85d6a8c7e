"""Chooses the device and threads that a benchmark runs on, and waits for it around every timing."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch

from llava.utils import pick_device

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def add_device_flag(parser: argparse.ArgumentParser, default: str = "cpu") -> None:
    """Add the flag ``--device``; auto is the first that is available."""
    parser.add_argument("--device", default=default, help="device to run on: cpu, cuda, cuda:N, mps or auto")


def device_named(name: str) -> torch.device:
    """Return a device. Raises OptionError where it is not available: a benchmark runs on no other one."""
    return torch.device(pick_device(name))


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def seconds_of(way: Callable[[], Any], device: torch.device, repeats: int = 1) -> float:
    """Return the seconds of one call, the mean of ``repeats``, from an idle device to an idle device."""
    wait_for(device)
    start = time.perf_counter()
    for _ in range(repeats):
        way()
    wait_for(device)
    return (time.perf_counter() - start) / repeats
