"""A tiny served model, in this process and in its own."""

import asyncio
import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import uvicorn
from prometheus_client import CollectorRegistry

from ada.serve.budget_policy import BudgetPolicy
from llava.model.loaded_model import LoadedModel, open_model
from llava.serve import openai_api
from llava.serve.controller import create_app as create_controller
from llava.serve.controller import new_client
from llava.serve.openai_compat.controller_client import ControllerClient
from llava.serve.worker.app import create_app
from llava.serve.worker.request_limits import RequestLimits
from llava.serve.worker.service import WorkerService


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def loaded(make_adaptive_checkpoint) -> LoadedModel:
    """An adaptive model that never ends an answer by itself, within 256 positions."""
    folder = make_adaptive_checkpoint(eos_token_id=None)
    return open_model({"model_path": str(folder), "model_name": "tiny", "device": "cpu"})


@pytest.fixture
def make_service(loaded):
    """``make_service(flags={...}, **changes)``: a worker without its network."""

    def make(flags=None, **changes) -> WorkerService:
        registry = CollectorRegistry()
        policy = BudgetPolicy(loaded, flags or {}, registry)
        return WorkerService(loaded, policy=policy, registry=registry, **changes)

    return make


@pytest.fixture(scope="session")
def image_text(picture: Path) -> str:
    """A picture as requests carry it."""
    return base64.b64encode(picture.read_bytes()).decode()


def parts_of(content: bytes) -> list[dict]:
    """The objects of an answer."""
    *parts, rest = content.split(b"\0")
    assert rest == b"", "every object ends in a zero byte"
    return [json.loads(part) for part in parts]


class Client(httpx.AsyncClient):
    """Asks an application in this process."""

    def __init__(self, app, base="http://worker") -> None:
        super().__init__(transport=httpx.ASGITransport(app), base_url=base, timeout=600)

    async def ask(self, **fields) -> list[dict]:
        reply = await self.post("/worker_generate_stream", json={"prompt": "w5", "temperature": 0, **fields})
        assert reply.status_code == 200, reply.text
        return parts_of(reply.content)


class Connection:
    """One raw ASGI request, whose client reads, stops reading, or leaves, as told."""

    def __init__(self, app, **fields) -> None:
        self.messages: list[dict] = []
        self.left = asyncio.Event()
        self.reads = asyncio.Event()
        self.reads.set()
        self._body = json.dumps({"prompt": "w5", **fields}).encode()
        self._given = False
        headers = [(b"content-type", b"application/json")]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/worker_generate_stream",
            "raw_path": b"/worker_generate_stream",
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "http_version": "1.1",
            "headers": headers,
            "server": ("worker", 80),
            "client": ("client", 1),
            "asgi": {"version": "3.0", "spec_version": "2.3"},  # as uvicorn says
        }
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> dict:
        if not self._given:
            self._given = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict) -> None:
        await self.reads.wait()
        self.messages.append(message)

    def parts(self) -> list[dict]:
        content = b"".join(message.get("body", b"") for message in self.messages)
        return [json.loads(part) for part in content.split(b"\0") if part]


@pytest.fixture
def connect():
    """``connect(app, **fields)``: a ``Connection``."""
    return Connection


@pytest.fixture
def client_of():
    """``async with client_of(service, limits=None) as client``: its application, running."""

    class Running:
        def __init__(self, service, limits=None) -> None:
            self.app = create_app(service, limits)

        async def __aenter__(self) -> Client:
            self.lifespan = self.app.router.lifespan_context(self.app)
            await self.lifespan.__aenter__()
            self.client = Client(self.app)
            return self.client

        async def __aexit__(self, *error) -> None:
            await self.client.aclose()
            await self.lifespan.__aexit__(*error)

    return Running


@pytest.fixture
def slow_engine():
    """An engine whose tokens come when told to: ``slow_engine.tokens.release()``; its jobs in ``slow_engine.jobs``."""
    import threading

    from llava.generation import Answer
    from llava.serve.engine.request import Finished

    control = SimpleNamespace(tokens=threading.Semaphore(0), jobs=[], fail=None)

    class SlowEngine:
        def __init__(self, loaded, queue, policy) -> None:
            self.queue = queue
            self.thread = threading.Thread(target=self.work, daemon=True)

        def start(self) -> None:
            self.thread.start()

        @property
        def alive(self) -> bool:
            return self.thread.is_alive()

        def join(self, timeout_s: float) -> bool:
            self.thread.join(timeout_s)
            return not self.alive

        def work(self) -> None:
            while (job := self.queue.take()) is not None:
                control.jobs.append(job)
                job.begin()
                wanted = job.question.sampling.max_new_tokens
                for count in range(1, wanted + 1):
                    control.tokens.acquire()
                    if control.fail is not None:
                        break
                    job.say("w" * count, count)
                    if job.halted.is_set():
                        break
                timing = {"time_to_first_token_ms": 1.0, "tokens_per_second": 0.0, "new_tokens": float(job.tokens)}
                reason = "abort" if job.halted.is_set() else "length"
                answer = Answer(job.text, [3] * job.tokens, timing, {}, [1.0] * (job.tokens - 1), reason)
                self.queue.done(job, control.fail or Finished(answer, job.text, reason, {}))

    control.make = SlowEngine
    return control


@pytest.fixture(scope="module")
def start_program(root, tmp_path_factory):
    """``start_program(module, *flags, health="/health")``: a server in a process of its own; its address, once it
    answers."""
    processes = []

    def start(module: str, *flags: object, health: str = "/health") -> str:
        address = f"http://127.0.0.1:{flags[flags.index('--port') + 1]}"
        log = tmp_path_factory.mktemp("log") / "log"
        env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        with open(log, "wb") as output:
            command = [sys.executable, "-m", module, "--host", "127.0.0.1", *map(str, flags)]
            env["PYTHONPATH"] = str(root)
            process = subprocess.Popen(command, cwd=root, env=env, stdout=output, stderr=subprocess.STDOUT)
        processes.append(process)
        deadline = time.monotonic() + 300
        while True:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(address + health, trust_env=False).status_code == 200:
                    return address
            time.sleep(0.1)

    yield start
    for process in reversed(processes):
        process.terminate()
    for process in processes:
        process.wait(60)


class Listening:
    """An application behind a real socket, in a thread of its own."""

    def __init__(self, app) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.app = app
        self.server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive(), "the application ended as it began"
            time.sleep(0.01)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(60)


@pytest.fixture(scope="session")
def listen():
    """``listen(app)``: a ``Listening``; all are stopped at the end."""
    running: list[Listening] = []

    def start(app) -> Listening:
        running.append(Listening(app))
        return running[-1]

    yield start
    for server in reversed(running):
        server.stop()


@pytest.fixture(scope="session")
def served(loaded, listen) -> SimpleNamespace:
    """Controller, worker and OpenAI-style API over real sockets: ``.controller``, ``.worker``, ``.api``, ``.service``.
    No answer is longer than 8 tokens."""
    registry = CollectorRegistry()
    policy = BudgetPolicy(loaded, {}, registry)
    limits = RequestLimits(max_output_tokens=8)
    service = WorkerService(loaded, policy=policy, registry=registry, limits=limits)
    worker, controller = listen(create_app(service)), listen(create_controller())
    body = {"worker_name": worker.address, "check_heart_beat": False}
    assert httpx.post(f"{controller.address}/register_worker", json=body, trust_env=False).status_code == 200
    client = ControllerClient(controller.address, new_client())
    api = listen(openai_api.create_app(openai_api.ChatApi(client)))
    return SimpleNamespace(worker=worker, controller=controller, api=api, service=service)
