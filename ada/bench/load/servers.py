"""Starts a controller, one worker and, where asked, the API as processes, and stops them when the load test ends."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from llava.errors import OptionError

HOST = "127.0.0.1"
START_S, STOP_S = 600.0, 60.0


@dataclass(frozen=True)
class Servers:
    """Addresses of controller, worker and API, the worker's model and conversation template, and the process ids."""

    controller: str
    worker: str
    model: str
    conv_mode: str | None
    api: str | None = None
    processes: Mapping[str, int] = field(default_factory=dict)


@contextlib.contextmanager
def started(worker_flags: Sequence[str], api_flags: Sequence[str] | None = None) -> Iterator[Servers]:
    """Start controller and worker, and yield them once the controller lists the model; the API, where it has flags.

    Raises OptionError, with the last lines of its log, for a process that ends before it answers.
    """
    ports = _free_ports(3)
    controller, worker, api = (f"http://{HOST}:{port}" for port in ports)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        logs = [Path(folder) / f"{name}.log" for name in ("controller", "worker", "api")]
        processes = {"controller": stack.enter_context(_running("llava.serve.controller", ports[0], [], logs[0])).pid}
        flags = ["--controller-address", controller, *worker_flags]
        process = stack.enter_context(_running("llava.serve.model_worker", ports[1], flags, logs[1]))
        processes["worker"] = process.pid
        metadata = _wait(f"{worker}/ready", "GET", process, logs[1])
        _wait(f"{controller}/list_models", "POST", process, logs[1])
        if api_flags is not None:
            flags = ["--controller-address", controller, *api_flags]
            process = stack.enter_context(_running("llava.serve.openai_api", ports[2], flags, logs[2]))
            processes["api"] = process.pid
            _wait(f"{api}/ready", "GET", process, logs[2])
        names = metadata["model"], metadata["conv_mode"]
        yield Servers(controller, worker, *names, api if api_flags is not None else None, processes)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


@contextlib.contextmanager
def _running(module: str, port: int, flags: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", module, "--host", HOST, "--port", str(port), *flags]
    with open(log, "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=os.environ)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(address: str, method: str, process: subprocess.Popen[bytes], log: Path) -> dict[str, Any]:
    """Return the JSON of ``address`` as soon as it answers with a model in it."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            reply = httpx.request(method, address, trust_env=False, timeout=START_S)
            content: dict[str, Any] = reply.json() if reply.status_code == 200 else {}
            if content and content.get("models", True):  # a list of models is not empty
                return content
        time.sleep(0.1)
    last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
    raise OptionError(f"the server does not answer at {address}; the last lines of its log: {' | '.join(last)}")
