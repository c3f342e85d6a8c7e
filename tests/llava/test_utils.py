"""Logging, devices."""

import asyncio
import json
import logging
import sys
from types import SimpleNamespace

import pytest
import requests
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


@pytest.mark.parametrize(
    ("written", "logged"),
    [(["a line\n"], ["a line"]), (["a ", "line  \nand", " more"], ["a line", "and more"]), (["\n", "b"], ["", "b"])],
)
def test_stream_to_logger_logs_each_line_once(caplog, written, logged):
    logger = logging.getLogger("stream")
    stream = utils.StreamToLogger(logger, logging.WARNING)
    with caplog.at_level(logging.WARNING, "stream"):
        for text in written:
            stream.write(text)
        stream.flush()
        stream.flush()
    assert [record.getMessage() for record in caplog.records] == logged
    assert stream.encoding == sys.stdout.encoding, "other attributes are the terminal's"


@pytest.fixture
def moderation(monkeypatch):
    """``moderation(reply)``: a server that gives a reply, or raises it; the list of what it was sent."""
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://judge/v1/")
    sent = []

    def serve(reply):
        def post(url, **keywords):
            sent.append((url, keywords))
            if isinstance(reply, Exception):
                raise reply
            return SimpleNamespace(json=lambda: json.loads(reply))

        monkeypatch.setattr(requests, "post", post)
        return sent

    return serve


@pytest.mark.parametrize("flagged", [True, False])
def test_violates_moderation_asks_the_server(moderation, flagged):
    sent = moderation(json.dumps({"results": [{"flagged": flagged}]}))
    assert utils.violates_moderation('say "this"\nand that') is flagged
    ((url, keywords),) = sent
    assert url == "http://judge/v1/moderations"
    assert keywords["json"] == {"input": 'say "this"and that'}
    assert keywords["headers"] == {"Authorization": "Bearer secret"}


NO_ANSWERS = ['{"error": "no"}', '{"results": []}', "[]", '{"results": null}', requests.ConnectionError("down")]


@pytest.mark.parametrize("reply", [*NO_ANSWERS, requests.Timeout()])
def test_violates_moderation_without_an_answer_is_false_and_logged(moderation, caplog, reply):
    moderation(reply)
    assert utils.violates_moderation("text") is False
    assert "not moderated, as http://judge/v1/ gives no answer" in caplog.text


def test_violates_moderation_without_a_key_raises(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(OptionError, match="OPENAI_API_KEY"):
        utils.violates_moderation("text")
