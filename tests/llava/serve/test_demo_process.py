"""The web demo as a real process: how soon it ends while pages are open, or its controller does not answer."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest

WAIT_S = 300
RUNNING_ON = re.compile(r"running on (http://[\w.]+:\d+)")
SOON_S = 4.0  # less than the server's grace for replies


@pytest.fixture
def stopped_controller():
    """A controller that accepts connections and answers nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(WAIT_S)
        yield listening


@pytest.fixture
def demo(root, tmp_path, stopped_controller):
    """The demo's process, and its address."""
    log = tmp_path / "demo.log"
    controller = f"http://127.0.0.1:{stopped_controller.getsockname()[1]}"
    flags = ["--port", "0", "--log-dir", str(tmp_path / "votes"), "--controller-url", controller]
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "llava.serve.gradio_web_server", *flags],
            env={**os.environ, "PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=root,
        )
    deadline = time.monotonic() + WAIT_S
    while (found := RUNNING_ON.search(log.read_text())) is None:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    yield process, found[1], log
    if process.poll() is None:
        process.kill()
        process.wait(WAIT_S)


def ends_within(process: subprocess.Popen, seconds: float, *signals: int) -> bool:
    """Whether the process ends with code 0 soon after these signals."""
    began = time.monotonic()
    for sign in signals:
        process.send_signal(sign)
        time.sleep(0.3)
    assert process.wait(WAIT_S) == 0
    return time.monotonic() - began < seconds


def test_demo_with_open_pages_ends_at_once(demo) -> None:
    process, address, log = demo
    with httpx.Client(trust_env=False, timeout=WAIT_S) as client:
        pages = [client.stream("GET", f"{address}/gradio_api/heartbeat/page{number}") for number in range(3)]
        for page in pages:
            assert "ALIVE" in next(page.__enter__().iter_text())
        assert ends_within(process, SOON_S, signal.SIGTERM), log.read_text()
    assert "Traceback" not in log.read_text() and "WARNING" not in log.read_text()


def test_demo_that_waits_for_its_controller_ends_at_the_second_signal(demo, stopped_controller) -> None:
    process, address, log = demo
    asking = threading.Thread(target=_ask, args=(f"{address}/ready",), daemon=True)
    asking.start()
    connection, _ = stopped_controller.accept()  # a thread of the demo waits for its answer
    with connection:
        assert ends_within(process, SOON_S + 4, signal.SIGTERM, signal.SIGTERM), log.read_text()
    assert "Traceback" not in log.read_text()


def _ask(url: str) -> None:
    with contextlib.suppress(httpx.HTTPError):
        httpx.get(url, trust_env=False, timeout=WAIT_S)
