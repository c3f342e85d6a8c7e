"""Controller and worker as real processes over real sockets: kills, restarts, disconnects, SIGTERM, a full queue."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fixtures.ports import reserved_ports
from fixtures.servers import wait_until

from llava.serve.protocol.framing import iter_chunks

WAIT_S = 300  # for machines that are busy with other things
LONG = 3000  # tokens: some seconds of answering


class Program:
    """One server process, its output in a file."""

    def __init__(self, root: Path, log: Path, module: str, port: int, *flags: object) -> None:
        self.log = log
        self.address = f"http://127.0.0.1:{port}"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        with open(log, "ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, "--host", "127.0.0.1", "--port", str(port), *map(str, flags)],
                cwd=root,
                env={**environment, "PYTHONPATH": str(root)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        wait_until(self.healthy, f"{self.address} is up\n{log.read_text()}")

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def healthy(self) -> bool:
        assert self.running, self.log.read_text()
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.address}/health", trust_env=False).status_code == 200
        return False

    def post(self, path: str) -> dict:
        return httpx.post(f"{self.address}{path}", json={}, trust_env=False).json()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(WAIT_S)


class Answer(threading.Thread):
    """A request that is being answered; its chunks as they come. Setting ``leave`` disconnects at the next one."""

    def __init__(self, server: Program, tokens: int = LONG, **fields) -> None:
        super().__init__(daemon=True)
        self.url = f"{server.address}/worker_generate_stream"
        self.chunks: list[dict] = []
        self.status: int | None = None
        self.body = {"model": "tiny", "prompt": "w5", "temperature": 0, "max_new_tokens": tokens, **fields}
        self.leave = threading.Event()
        self.start()

    def run(self) -> None:
        with (
            contextlib.suppress(httpx.RemoteProtocolError),  # the controller was killed
            httpx.Client(trust_env=False, timeout=WAIT_S) as client,
            client.stream("POST", self.url, json=self.body) as reply,
        ):
            self.status = reply.status_code
            for chunk in iter_chunks(reply.iter_bytes()):
                self.chunks.append(chunk)
                if self.leave.is_set():
                    return

    def started(self) -> "Answer":
        wait_until(lambda: self.chunks, "the answer starts")
        return self

    def disconnect(self) -> None:
        self.leave.set()
        self.join(WAIT_S)

    def last(self) -> dict:
        self.join(WAIT_S)
        return self.chunks[-1]


class Deployment:
    """One controller and one worker, each started again on its port where it does not run."""

    def __init__(self, root: Path, logs: Path, checkpoint: Path, ports: list[int]) -> None:
        self.root, self.logs, self.checkpoint = root, logs, checkpoint
        self.controller_port, self.worker_port = ports
        self.controller: Program = None  # type: ignore[assignment]
        self.worker: Program = None  # type: ignore[assignment]

    def start_controller(self) -> None:
        flags = ("--heart-beat-expiration", 3)
        log = self.logs / "controller.log"
        self.controller = Program(self.root, log, "llava.serve.controller", self.controller_port, *flags)

    def start_worker(self) -> None:
        flags = ["--controller-address", f"http://127.0.0.1:{self.controller_port}", "--model-path", self.checkpoint]
        flags += ["--model-name", "tiny", "--device", "cpu", "--max-queue-length", 1, "--max-output-tokens", LONG]
        flags += ["--heart-beat-interval", 0.5, "--limit-model-concurrency", 1]
        log = self.logs / "worker.log"
        self.worker = Program(self.root, log, "llava.serve.model_worker", self.worker_port, *flags)

    def make_ready(self) -> "Deployment":
        if self.controller is None or not self.controller.running:
            self.start_controller()
        if self.worker is None or not self.worker.running:
            self.start_worker()
        self.wait_for_models(["tiny"])
        self.wait_for_queue(0)
        return self

    def wait_for_models(self, names: list[str]) -> None:
        wait_until(lambda: self.controller.post("/list_models")["models"] == names, f"the models are {names}")

    def wait_for_queue(self, length: int) -> None:
        status = "/worker_get_status"
        wait_until(lambda: self.worker.post(status)["queue_length"] == length, f"the queue length is {length}")

    def metric(self, name: str) -> float:
        text = httpx.get(f"{self.worker.address}/metrics", trust_env=False).text
        lines = [line for line in text.splitlines() if line.startswith(f"adallava:{name}")]
        return sum(float(line.split()[-1]) for line in lines)

    def stop(self) -> None:
        for program in (self.controller, self.worker):
            if program is not None and program.running:
                program.kill()


@pytest.fixture(scope="module")
def deployment(root, tmp_path_factory, make_adaptive_checkpoint) -> Iterator[Deployment]:
    checkpoint = make_adaptive_checkpoint(eos_token_id=None, max_position_embeddings=4096, max_sequence_length=4096)
    with reserved_ports(2) as ports:
        deployment = Deployment(root, tmp_path_factory.mktemp("logs"), checkpoint, ports)
        yield deployment
        deployment.stop()


@pytest.fixture
def servers(deployment) -> Deployment:
    """Controller and worker, registered and idle."""
    return deployment.make_ready()


def test_client_that_disconnects_from_the_controller_stops_its_generation(servers) -> None:
    aborted, generated = 'request_success_total{finished_reason="abort"', "generation_tokens_total"
    before = servers.metric(aborted), servers.metric(generated)
    Answer(servers.controller, latency_budget=0.5).started().disconnect()
    servers.wait_for_queue(0)
    assert servers.metric(aborted) == before[0] + 1
    assert servers.metric(generated) < before[1] + LONG - 100


def test_full_queue_refuses_the_next_request(servers) -> None:
    running = Answer(servers.controller).started()
    waiting = Answer(servers.controller)
    servers.wait_for_queue(2)
    refused = Answer(servers.controller)
    assert refused.last()["reason"] == "queue_full" and refused.status == 429
    for answer in (waiting, running):
        answer.leave.set()


def test_worker_registers_again_with_a_restarted_controller(servers) -> None:
    lost = Answer(servers.controller).started()
    lost.leave.set()
    servers.controller.kill()
    servers.start_controller()
    servers.wait_for_models(["tiny"])
    servers.wait_for_queue(0)
    assert Answer(servers.controller, tokens=3).last()["finish_reason"] == "length"


def test_killed_worker_is_reported_in_its_answer_and_forgotten(servers) -> None:
    answer = Answer(servers.controller).started()
    servers.worker.kill()
    last = answer.last()
    assert last["error_code"] == 3 and "lost" in last["text"] and "NETWORK" not in last["text"]
    servers.wait_for_models([])
    assert Answer(servers.controller, tokens=3).last()["error_code"] == 2


def test_sigterm_worker_answers_accepted_requests_and_exits_with_0(servers) -> None:
    accepted = [Answer(servers.controller, tokens=1000).started(), Answer(servers.controller, tokens=10)]
    servers.wait_for_queue(2)
    servers.worker.process.send_signal(signal.SIGTERM)
    servers.wait_for_models([])
    assert [answer.last()["usage"]["completion_tokens"] for answer in accepted] == [1000, 10]
    assert servers.worker.process.wait(WAIT_S) == 0
    assert servers.controller.running


@pytest.mark.parametrize(
    ("module", "flags", "named"),
    [
        ("llava.serve.model_worker", ["--model-path", "nowhere/at/all"], "nowhere/at/all"),
        ("llava.serve.register_worker", ["--controller-address", "http://127.0.0.1:9", "--worker-name", "x"], ":9"),
        ("llava.serve.test_message", ["--controller-address", "http://127.0.0.1:9"], "error"),
    ],
)
def test_program_user_error_exits_with_2_and_no_traceback(root, module, flags, named) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", module, *flags]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment, timeout=WAIT_S)
    assert ran.returncode == 2 and named in ran.stderr and "Traceback" not in ran.stderr, ran.stderr
