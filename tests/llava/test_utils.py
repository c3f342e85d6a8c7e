"""Logging, devices."""

import asyncio
import logging

import pytest
import torch

from llava import utils
from llava.errors import OptionError


def test_build_logger_writes_each_line_once(tmp_path, monkeypatch):
    monkeypatch.setattr(utils, "LOGDIR", str(tmp_path / "logs"))
    name = f"test-{tmp_path}"
    logger = utils.build_logger(name, "worker.log")
    assert utils.build_logger(name, "worker.log") is logger
    logger.info("hello")
    for handler in logger.handlers:
        handler.flush()
    assert (tmp_path / "logs" / "worker.log").read_text().count("hello") == 1
    assert logging.getLogger().handlers != logger.handlers


def test_pick_device_by_flag_and_availability(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert utils.pick_device(None) == utils.pick_device("auto") == utils.pick_device("cpu") == "cpu"
    with pytest.raises(OptionError, match=r"cuda:1.*not available here; available: cpu"):
        utils.pick_device("cuda:1")
    with pytest.raises(OptionError, match="tpu"):
        utils.pick_device("tpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert utils.pick_device() == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert utils.pick_device() == "cuda"
    assert utils.pick_device("cuda:1") == "cuda:1"


def test_disable_torch_init_skips_initialisation(monkeypatch):
    for kind in (torch.nn.Linear, torch.nn.LayerNorm):
        monkeypatch.setattr(kind, "reset_parameters", kind.reset_parameters)  # put back afterwards
    utils.disable_torch_init()
    before = torch.get_rng_state()
    torch.nn.Linear(4, 4)
    assert torch.equal(before, torch.get_rng_state())


def test_pretty_print_semaphore():
    assert utils.pretty_print_semaphore(None) == "None"
    assert utils.pretty_print_semaphore(asyncio.Semaphore(3)) == "Semaphore(value=3, locked=False)"
