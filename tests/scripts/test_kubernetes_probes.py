"""The probes of the workers' manifests, tried as a kubelet tries them on real workers in each of their states."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fixtures.manifests import Container, containers, manifests
from fixtures.ports import reserved_ports
from fixtures.servers import wait_until
from fixtures.serving import metric_samples, parts_of

WAIT_S = 300
PLAIN, GATEWAY = "kubernetes", "kubernetes/gateway"

# Loads its model once the file GO is there; its engine's thread ends, without an error, once the file DIE is there.
PATCH = """
import os, time
from llava.serve import model_worker
from llava.serve.engine.batch_engine import BatchEngine
def wait_for(variable):
    while not os.path.exists(os.environ[variable]):
        time.sleep(0.02)
open_model = model_worker.open_model
def open_late(options):
    wait_for("GO")
    return open_model(options)
model_worker.open_model = open_late
if "DIE" in os.environ:
    BatchEngine._work = lambda self: wait_for("DIE")
raise SystemExit(model_worker.main())
"""


class Pod:
    """A worker's process, run with the arguments of its manifest; ``flags`` come after these."""

    def __init__(self, container: Container, port: int, files: Path, *flags: object, dies: bool = False) -> None:
        self.container, self.files = container, files
        transport = httpx.HTTPTransport(limits=httpx.Limits(max_keepalive_connections=0))  # as a kubelet connects
        self.client = httpx.Client(transport=transport, base_url=f"http://127.0.0.1:{port}", timeout=WAIT_S)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        environment |= {"GO": str(files / "go"), "LLAVA_REGISTRATION_TOKEN": "secret"}
        if dies:
            environment["DIE"] = str(files / "die")
        given = [flag.replace("$(POD_IP)", "127.0.0.1") for flag in container.flags]
        with open(files / "log", "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PATCH, *given, "--port", str(port), *map(str, flags)],
                cwd=Path(__file__).resolve().parents[2],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def passes(self, kind: str) -> bool:
        """Whether one try of a probe passes: by its path and time limit, at the Pod's address."""
        probe = self.container.spec[kind]
        try:
            reply = self.client.get(probe["httpGet"]["path"], timeout=probe.get("timeoutSeconds", 1))
            return 200 <= reply.status_code < 400
        except httpx.HTTPError:
            return False

    def acted_on(self, kind: str) -> bool:
        """Whether the kubelet acts: as many tries fail, one after the other, as the probe's threshold says."""
        return not any(self.passes(kind) for _ in range(self.container.spec[kind].get("failureThreshold", 3)))

    def go(self) -> None:
        """Let it load its model, and wait as long as the startup probe does not pass."""
        (self.files / "go").touch()
        wait_until(lambda: self.passes("startupProbe") or self.process.poll() is not None, "the worker starts")
        assert self.process.poll() is None, (self.files / "log").read_text()


@pytest.fixture
def start(root, tmp_path, make_adaptive_checkpoint) -> Iterator[Callable[..., Pod]]:
    """``start(folder)``: a ``Pod`` of the worker in a folder's manifests, with a tiny model."""
    checkpoint = make_adaptive_checkpoint(eos_token_id=None, max_position_embeddings=4096, max_sequence_length=4096)
    pods: list[Pod] = []

    def run(folder: str, **options: bool) -> Pod:
        [worker] = [c for c in containers(manifests(root / "scripts/deploy" / folder)) if c.spec["name"] == "worker"]
        flags = ["--model-path", checkpoint, "--model-name", "tiny", "--device", "cpu", "--max-output-tokens", 4000]
        nobody = ["--controller-address", f"http://127.0.0.1:{ports[1]}"]
        pods.append(Pod(worker, ports[0], tmp_path, *flags, *nobody, **options))
        return pods[-1]

    with reserved_ports(2) as ports:
        yield run
        for pod in pods:
            pod.process.kill()
            pod.process.wait(WAIT_S)


def test_worker_that_loads_is_not_started_and_one_whose_engine_died_is_restarted(start) -> None:
    pod = start(PLAIN, dies=True)
    startup = pod.container.spec["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 600, "the time that the manifest's comment says"
    assert pod.acted_on("startupProbe") and pod.process.poll() is None, "nothing listens while it loads"
    pod.go()
    assert pod.passes("livenessProbe") and pod.passes("readinessProbe")
    (pod.files / "die").touch()
    wait_until(lambda: not pod.passes("livenessProbe"), "the engine's thread ends")
    assert pod.acted_on("livenessProbe") and pod.acted_on("readinessProbe")
    assert pod.process.poll() is None, "it would go on like this"


def test_worker_that_drains_gets_no_requests_and_is_not_restarted(start) -> None:
    pod = start(GATEWAY)
    pod.go()
    body = {"prompt": "w5", "temperature": 0, "max_new_tokens": 2500}
    answer: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answer.append(pod.client.post("/worker_generate_stream", json=body)))
    asking.start()

    def gauges() -> list[float]:
        samples = metric_samples(pod.client.get("/metrics").text)
        return [samples[f"vllm:{name}"] for name in ("num_requests_running", "kv_cache_usage_perc")]

    wait_until(lambda: gauges()[0] == 1 and gauges()[1] > 0, "the answer begins, and gateways see it")
    assert pod.passes("livenessProbe") and pod.passes("readinessProbe"), "work is no reason to be left alone"
    pod.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not pod.passes("readinessProbe"), "it drains")
    assert pod.acted_on("readinessProbe") and pod.passes("livenessProbe") and pod.passes("startupProbe")
    asking.join(WAIT_S)
    assert parts_of(answer[0].content)[-1]["usage"]["completion_tokens"] == 2500
    assert pod.process.wait(WAIT_S) == 0
