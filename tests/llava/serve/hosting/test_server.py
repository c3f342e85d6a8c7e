"""A server at a real socket while it drains, and its exit code."""

import logging
import threading
import time

import pytest
from fixtures.hosting import read

from llava.serve.hosting import server as server_module
from llava.serve.hosting.options import GRACE_S

SLOW = b"GET /slow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def drain(hosted) -> None:
    hosted.server._loop.call_soon_threadsafe(hosted.middleware.lifecycle.drain)
    hosted.wait_until(lambda: hosted.middleware.lifecycle.draining)


def test_draining_server_finishes_answers_with_its_port_open(host) -> None:
    hosted = host()
    slow = hosted.connect(SLOW)
    hosted.wait_until(lambda: hosted.middleware.lifecycle.in_flight == 1)
    drain(hosted)
    assert b"200 OK" in hosted.ask("GET /health HTTP/1.1\r\nHost: localhost\r\n")
    refused = hosted.ask("GET /hello HTTP/1.1\r\nHost: localhost\r\n")
    assert b"503 Service" in refused and b"retry-after: 1" in refused.lower() and b"shutting_down" in refused
    hosted.release.set()
    assert b"slow" in read(slow)
    hosted.thread.join(60)
    assert hosted.code == 0
    with pytest.raises(ConnectionRefusedError):
        hosted.connect()


def test_draining_server_without_requests_ends_at_once(host) -> None:
    hosted = host()
    drain(hosted)
    hosted.thread.join(60)
    assert hosted.code == 0 and not hosted.abandoned.is_set()


def test_draining_server_waits_for_no_open_page(host, caplog) -> None:
    hosted = host()
    page = hosted.connect(b"GET /visit/page HTTP/1.1\r\nHost: localhost\r\n\r\n")
    while b"open" not in page.recv(65536):
        pass
    began = time.monotonic()
    drain(hosted)
    hosted.thread.join(60)
    assert hosted.code == 0 and time.monotonic() - began < GRACE_S / 2
    assert hosted.counted("/visit/page") == {"GET 499": 1}
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("works", [True, False])
def test_end_process_waits_for_no_thread(monkeypatch, works) -> None:
    thread, ended = threading.Thread(target=time.sleep), []
    monkeypatch.setattr(threading, "enumerate", lambda: [threading.main_thread(), *([thread] if works else [])])
    monkeypatch.setattr(server_module.os, "_exit", ended.append)
    monkeypatch.setattr(logging, "shutdown", lambda: None)
    with pytest.raises(SystemExit) as exits:
        server_module.end_process(1)
    assert ended == ([1] if works else []) and exits.value.code == 1


def test_draining_server_abandons_answers_after_its_time_limit(host, monkeypatch) -> None:
    monkeypatch.setattr(server_module, "GRACE_S", 0)
    hosted = host(drain_timeout_s=0.2)
    hosted.connect(SLOW)
    hosted.wait_until(lambda: hosted.middleware.lifecycle.in_flight == 1)
    drain(hosted)
    assert hosted.abandoned.wait(60)
    hosted.release.set()
    hosted.thread.join(60)
    assert hosted.code == 0


def test_failed_server_refuses_requests_and_ends_with_1(host, caplog) -> None:
    hosted = host()
    slow = hosted.connect(SLOW)
    hosted.wait_until(lambda: hosted.middleware.lifecycle.in_flight == 1)
    failing = threading.Thread(target=hosted.middleware.lifecycle.fail, args=("the abacus", RuntimeError("it broke")))
    failing.start()
    failing.join()
    assert b"the abacus has failed" in hosted.ask("GET /hello HTTP/1.1\r\nHost: localhost\r\n")
    hosted.release.set()
    assert b"slow" in read(slow)
    hosted.thread.join(60)
    assert hosted.code == 1 and "it broke" in caplog.text
