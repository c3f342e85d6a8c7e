"""Controller and workers as real processes, over real sockets: kills, restarts, lost clients, SIGTERM, a full queue."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

WAIT = 300  # seconds; for machines that are busy with other things
LONG = 3000  # tokens: some seconds of answering


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(true, what: str):
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        if value := true():
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited in vain: {what}")


class Program:
    """One process, its output in a file."""

    def __init__(self, root: Path, log: Path, module: str, *flags: object) -> None:
        self.log = log
        self.port = int(flags[flags.index("--port") + 1])
        self.address = f"http://127.0.0.1:{self.port}"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        with open(log, "ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, "--host", "127.0.0.1", *map(str, flags)],
                cwd=root,
                env={**environment, "PYTHONPATH": str(root)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def ready(self) -> "Program":
        def answers() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            try:
                return httpx.get(f"{self.address}/health", trust_env=False).status_code == 200
            except httpx.HTTPError:
                return False

        until(answers, f"{self.address} is up\n{self.log.read_text()}")
        return self

    def send(self, sign: signal.Signals) -> None:
        self.process.send_signal(sign)

    def ended(self) -> int:
        return self.process.wait(WAIT)


class Answer(threading.Thread):
    """A request on its way; its parts as they come."""

    def __init__(self, address: str, tokens: int = LONG, **fields) -> None:
        super().__init__(daemon=True)
        self.address, self.parts, self.status = address, [], None
        self.body = {"model": "tiny", "prompt": "w5", "temperature": 0, "max_new_tokens": tokens, **fields}
        self.leave = threading.Event()
        self.start()

    def run(self) -> None:
        with contextlib.suppress(httpx.RemoteProtocolError):  # the controller was killed
            self._read()

    def _read(self) -> None:
        url, rest = f"{self.address}/worker_generate_stream", b""
        with httpx.Client(trust_env=False, timeout=WAIT) as client, client.stream("POST", url, json=self.body) as reply:
            self.status = reply.status_code
            for data in reply.iter_bytes():
                *whole, rest = (rest + data).split(b"\0")
                self.parts += [json.loads(part) for part in whole]
                if self.leave.is_set():
                    return
            self.parts += [json.loads(rest)] if rest else []

    def begun(self) -> "Answer":
        until(lambda: self.parts, "the answer begins")
        return self

    def last(self) -> dict:
        self.join(WAIT)
        return self.parts[-1]


@pytest.fixture(scope="module")
def house(root, tmp_path_factory, make_adaptive_checkpoint):
    """A controller and what starts workers behind it; all are gone at the end."""
    logs = tmp_path_factory.mktemp("logs")
    checkpoint = make_adaptive_checkpoint(eos_token_id=None, max_position_embeddings=4096, max_sequence_length=4096)
    programs: list[Program] = []

    class House:
        controller_port, worker_port = free_port(), free_port()

        def controller(self) -> Program:
            flags = ("--port", self.controller_port, "--heart-beat-expiration", 3)
            programs.append(Program(root, logs / "controller.log", "llava.serve.controller", *flags))
            return programs[-1].ready()

        def worker(self) -> Program:
            flags = ["--port", self.worker_port, "--controller-address", f"http://127.0.0.1:{self.controller_port}"]
            flags += ["--model-path", checkpoint, "--model-name", "tiny", "--device", "cpu", "--max-queue-length", 1]
            flags += ["--max-output-tokens", LONG, "--heart-beat-interval", 0.5, "--limit-model-concurrency", 1]
            programs.append(Program(root, logs / "worker.log", "llava.serve.model_worker", *flags))
            return programs[-1].ready()

        def models(self) -> list[str]:
            return self.ask("/list_models")["models"]

        def ask(self, path: str, port: int | None = None) -> dict:
            url = f"http://127.0.0.1:{port or self.controller_port}{path}"
            return httpx.post(url, json={}, trust_env=False).json()

        def queue(self) -> int:
            return self.ask("/worker_get_status", self.worker_port)["queue_length"]

    yield House()
    for program in programs:
        if program.process.poll() is None:
            program.process.kill()
            program.process.wait()


def metric(worker: Program, name: str) -> float:
    text = httpx.get(f"{worker.address}/metrics", trust_env=False).text
    lines = [line for line in text.splitlines() if line.startswith(f"adallava:{name}")]
    return sum(float(line.split()[-1]) for line in lines)


def test_a_day_of_a_controller_and_its_worker(house) -> None:
    controller, worker = house.controller(), house.worker()
    until(lambda: house.models() == ["tiny"], "the worker registers")

    # A client that goes away, through the controller: its generation stops.
    leaving = Answer(controller.address, latency_budget=0.5).begun()
    leaving.leave.set()
    leaving.join(WAIT)
    until(lambda: house.queue() == 0, "the slot is free")
    assert metric(worker, 'request_success_total{finished_reason="abort"') == 1
    assert metric(worker, "generation_tokens_total") < LONG - 100

    # One runs, one waits, the third is told to come again.
    running = Answer(controller.address).begun()
    waiting = Answer(controller.address)
    until(lambda: house.queue() == 2, "the second waits")
    refused = Answer(controller.address)
    assert refused.last()["reason"] == "queue_full" and refused.status == 429

    # The controller is restarted: what it relayed is lost, and the worker comes back by itself.
    for answer in (running, waiting):
        answer.leave.set()
    controller.process.kill()
    controller.ended()
    controller = house.controller()
    until(lambda: house.models() == ["tiny"], "the worker comes back")
    until(lambda: house.queue() == 0, "its slots are free")
    assert Answer(controller.address, tokens=3).last()["finish_reason"] == "length"

    # The worker is killed in the middle of an answer: the client is told, the controller forgets it.
    broken = Answer(controller.address).begun()
    worker.process.kill()
    worker.ended()
    last = broken.last()
    assert last["error_code"] == 3 and "lost" in last["text"] and "NETWORK" not in last["text"]
    until(lambda: house.models() == [], "the worker is forgotten")
    assert Answer(controller.address, tokens=3).last()["error_code"] == 2

    # A restarted one is used again. SIGTERM under load: what was accepted is answered whole, then it leaves.
    worker = house.worker()
    until(lambda: house.models() == ["tiny"], "the new worker registers")
    accepted = [Answer(controller.address, tokens=1000).begun()]
    accepted.append(Answer(controller.address, tokens=10))
    until(lambda: house.queue() == 2, "both are in")
    worker.send(signal.SIGTERM)
    until(lambda: house.models() == [], "it says that it leaves")
    assert worker.process.poll() is None or accepted[0].last()
    assert [answer.last()["usage"]["completion_tokens"] for answer in accepted] == [1000, 10]
    assert worker.ended() == 0
    assert controller.process.poll() is None
    controller.send(signal.SIGTERM)
    controller.ended()


@pytest.mark.parametrize(
    ("module", "flags", "named"),
    [
        ("llava.serve.model_worker", ["--model-path", "nowhere/at/all"], "nowhere/at/all"),
        ("llava.serve.register_worker", ["--controller-address", "http://127.0.0.1:9", "--worker-name", "x"], ":9"),
        ("llava.serve.test_message", ["--controller-address", "http://127.0.0.1:9"], "error"),
    ],
)
def test_programs_say_what_is_wrong(root, module, flags, named) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", module, *flags]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment, timeout=WAIT)
    assert ran.returncode == 2 and named in ran.stderr and "Traceback" not in ran.stderr, ran.stderr
