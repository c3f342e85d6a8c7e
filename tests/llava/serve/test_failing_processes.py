"""Servers as real processes: a part that dies ends its process, draining keeps the port open, heads are timed."""

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from fixtures.marks import slow_except
from fixtures.servers import wait_until

from llava.serve.protocol.framing import iter_chunks

WAIT_S = 300
RUNNING_ON = re.compile(r"running on (http://[\w.]+:(\d+))")

# Each patches a part of the worker, and fails in it once the file that FAULT names is there.
ENGINE = """
from llava.serve.engine.batch_engine import BatchEngine
original = BatchEngine._retire_finished
def retire(self):
    if os.path.exists(os.environ["FAULT"]):
        raise RuntimeError("the abacus broke")
    original(self)
BatchEngine._retire_finished = retire
"""
HEART_BEAT = """
from llava.serve.worker.service import WorkerService
original = WorkerService.status
def status(self):
    if os.path.exists(os.environ["FAULT"]):
        raise ValueError("no pulse")
    return original(self)
WorkerService.status = status
"""
FAULTS = {"engine": (ENGINE, "the abacus broke"), "heartbeat": (HEART_BEAT, "no pulse")}


class Server:
    """A server's process on a free port; its output in a file."""

    def __init__(self, root: Path, log: Path, module: str, *flags: object, patch: str = "", **options) -> None:
        self.log = log
        self.fault = log.with_suffix(".fault")
        code = f"import os\n{patch}\nfrom {module} import main\nraise SystemExit(main())"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, "--host", "127.0.0.1", "--port", "0", *map(str, flags)],
                cwd=root,
                env={**environment, "PYTHONPATH": str(root), "FAULT": str(self.fault)},
                stdout=output,
                stderr=subprocess.STDOUT,
                **options,
            )
        found = wait_until(self._address, f"{module} runs")
        self.address, self.port = found[1], int(found[2])

    def _address(self) -> re.Match[str] | None:
        assert self.process.poll() is None, self.output()
        return RUNNING_ON.search(self.output())

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.address}{path}", trust_env=False, timeout=WAIT_S)

    def models(self) -> list[str]:
        return httpx.post(f"{self.address}/list_models", json={}, trust_env=False).json()["models"]


class Answer(threading.Thread):
    """A request that is being answered; its chunks as they come."""

    def __init__(self, server: Server, tokens: int) -> None:
        super().__init__(daemon=True)
        self.url = f"{server.address}/worker_generate_stream"
        self.body = {"model": "tiny", "prompt": "w5", "temperature": 0, "max_new_tokens": tokens}
        self.chunks: list[dict] = []
        self.start()

    def run(self) -> None:
        client = httpx.Client(trust_env=False, timeout=WAIT_S)
        with client, client.stream("POST", self.url, json=self.body) as reply:
            for chunk in iter_chunks(reply.iter_bytes()):
                self.chunks.append(chunk)

    def last(self) -> dict:
        self.join(WAIT_S)
        return self.chunks[-1]


@pytest.fixture(scope="module")
def checkpoint(make_adaptive_checkpoint) -> Path:
    return make_adaptive_checkpoint(eos_token_id=None, max_position_embeddings=4096, max_sequence_length=4096)


@pytest.fixture
def start(root, tmp_path, checkpoint):
    """``start(module, *flags)``: a ``Server``; the worker gets the tiny model's flags as well."""
    servers: list[Server] = []

    def run(module: str, *flags: object, **options) -> Server:
        if module == "llava.serve.model_worker":
            flags = (*flags, "--model-path", checkpoint, "--model-name", "tiny", "--device", "cpu")
            flags = (*flags, "--max-output-tokens", 4000, "--heart-beat-interval", 0.5)
        servers.append(Server(root, tmp_path / f"{len(servers)}.log", module, *flags, **options))
        return servers[-1]

    yield run
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait(WAIT_S)


@pytest.fixture
def controller(start) -> Server:
    return start("llava.serve.controller")


@pytest.mark.parametrize("part", slow_except(FAULTS, "engine"))
def test_part_that_dies_ends_the_worker_with_1_and_the_controller_forgets_it(start, controller, part) -> None:
    patch, said = FAULTS[part]
    flags = ("--controller-address", controller.address, "--limit-model-concurrency", 1)
    worker = start("llava.serve.model_worker", *flags, patch=patch)
    wait_until(lambda: controller.models() == ["tiny"], "the worker registers")
    running, waiting = Answer(controller, 3000), Answer(controller, 3000)
    loads = {"running": 1, "waiting": 1}
    wait_until(lambda: worker.get("/ready").json().items() >= loads.items(), "one runs, one waits")
    worker.fault.touch()
    assert worker.process.wait(WAIT_S) == 1, worker.output()
    expected = "engine_failed" if part == "engine" else "shutting_down"
    assert [answer.last().get("reason") for answer in (running, waiting)] == [expected] * 2, worker.output()
    assert "Traceback" in worker.output() and said in worker.output()
    wait_until(lambda: controller.models() == [], "the controller forgets the worker")
    assert "forgotten: it is shutting down" in controller.output(), "the worker said so before it ended"
    assert controller.process.poll() is None


def test_draining_worker_answers_health_ready_and_metrics_to_its_end(start, controller) -> None:
    worker = start("llava.serve.model_worker", "--controller-address", controller.address)
    wait_until(lambda: controller.models() == ["tiny"], "the worker registers")
    accepted = Answer(controller, 2000)
    wait_until(lambda: accepted.chunks, "the answer begins")
    worker.process.send_signal(signal.SIGTERM)
    ready = wait_until(lambda: (reply := worker.get("/ready")).status_code == 503 and reply, "it drains")
    assert "shutting down" in ready.json()["reason"] and ready.headers["Retry-After"] == "1"
    assert worker.get("/health").status_code == 200
    assert "adallava:num_requests_running" in worker.get("/metrics").text
    body = {"prompt": "w5"}
    late = httpx.post(f"{worker.address}/worker_generate_stream", json=body, trust_env=False)
    assert late.status_code == 503 and late.headers["Retry-After"] == "1"
    assert accepted.last()["usage"]["completion_tokens"] == 2000
    assert worker.process.wait(WAIT_S) == 0


@pytest.mark.parametrize("server", slow_except(["controller", "api"], "api"))
def test_draining_relay_finishes_its_stream_with_the_port_open(start, controller, server) -> None:
    start("llava.serve.model_worker", "--controller-address", controller.address)
    wait_until(lambda: controller.models() == ["tiny"], "the worker registers")
    draining = controller
    if server == "api":
        draining = start("llava.serve.openai_api", "--controller-address", controller.address)
        assert draining.get("/ready").json() == {"ready": True, "reason": None, "models": ["tiny"]}
    answer = Answer(controller, 1500) if server == "controller" else ChatAnswer(draining, 1500)
    wait_until(lambda: answer.chunks, "the answer begins")
    draining.process.send_signal(signal.SIGTERM)
    ready = wait_until(lambda: (reply := draining.get("/ready")).status_code == 503 and reply, "it drains")
    assert "shutting down" in ready.json()["reason"]
    assert draining.get("/health").status_code == 200 and "http_requests_total" in draining.get("/metrics").text
    path = "/list_models" if server == "controller" else "/v1/chat/completions"
    late = httpx.post(f"{draining.address}{path}", json={}, trust_env=False)
    assert late.status_code == 503 and late.headers["Retry-After"] == "1"
    assert answer.last()["usage"]["completion_tokens"] > 0, "it came to its end"
    assert draining.process.wait(WAIT_S) == 0


class ChatAnswer(Answer):
    """The same through the OpenAI-style API."""

    def run(self) -> None:
        url = self.url.replace("/worker_generate_stream", "/v1/chat/completions")
        fields = {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": self.body["max_new_tokens"]}
        chat = {"model": "tiny", "messages": [{"role": "user", "content": "w5"}], "temperature": 0, **fields}
        client = httpx.Client(trust_env=False, timeout=WAIT_S)
        with client, client.stream("POST", url, json=chat) as reply:
            for line in reply.iter_lines():
                if line.startswith("data: {"):
                    self.chunks.append(json.loads(line[6:]))


@pytest.mark.parametrize("module", ["llava.serve.controller", "llava.serve.openai_api"])
def test_server_of_few_files_answers_among_half_sent_requests_and_logs_little(start, module) -> None:
    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    server = start(module, "--head-timeout", 10 * WAIT_S, preexec_fn=limit_files)
    half_sent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(150)]
    for connection in half_sent:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
    assert server.get("/health").status_code == 200, "others were closed for it, long before their time limit"
    assert len(server.output()) < 100_000
    for connection in half_sent:
        connection.close()
    wait_until(lambda: len(os.listdir(f"/proc/{server.process.pid}/fd")) < 32, "the connections' files are closed")
    assert server.get("/health").status_code == 200


@pytest.mark.parametrize("module", ["controller", "openai_api", "gradio_web_server", "model_worker"])
def test_taken_port_is_a_user_error_that_names_it(root, module) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(root)}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", f"llava.serve.{module}", "--host", "127.0.0.1", "--port", port]
        ran = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment, timeout=WAIT_S)
    assert ran.returncode == 2 and f"port {port} of 127.0.0.1 is taken" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("host", ["evil.example", "evil.example:21001", "localhost.evil.example"])
def test_servers_refuse_requests_for_another_name(controller, host) -> None:
    reply = httpx.get(f"{controller.address}/health", headers={"Host": host}, trust_env=False)
    assert reply.status_code == 421 and reply.json()["reason"] == "wrong_host"
