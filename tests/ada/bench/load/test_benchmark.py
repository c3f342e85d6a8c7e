"""The load benchmark: both parts with servers in this process, and, small, the program with real processes."""

import contextlib
import json
import os
import subprocess
import sys

import httpx
import pytest
from PIL import Image
from prometheus_client import CollectorRegistry

from ada.bench.__main__ import make_parser
from ada.bench.load import benchmark
from ada.bench.load.client import Result
from ada.bench.load.servers import Servers
from ada.serve.budget_policy import BudgetPolicy
from llava.serve.controller import create_app as create_controller
from llava.serve.model_worker import ENGINES
from llava.serve.model_worker import parse_arguments as parse_worker_arguments
from llava.serve.worker.app import create_app as create_worker
from llava.serve.worker.service import WorkerService


@pytest.fixture
def servers_in_process(loaded, listen, monkeypatch):
    """Start controller and worker in this process instead of in other processes."""

    @contextlib.contextmanager
    def started(flags):
        args = parse_worker_arguments([*flags, "--no-register"])
        registry = CollectorRegistry()
        worker = WorkerService(
            loaded,
            policy=BudgetPolicy(loaded, vars(args), registry),
            registry=registry,
            slots=args.limit_model_concurrency,
            max_waiting=args.max_queue_length,
            make_engine=ENGINES[args.engine],
        )
        controller, served = listen(create_controller()), listen(create_worker(worker))
        body = {"worker_name": served.address, "check_heart_beat": False}
        httpx.post(f"{controller.address}/register_worker", json=body, trust_env=False).raise_for_status()
        yield Servers(controller.address, served.address, loaded.name, loaded.conv_mode)

    monkeypatch.setattr(benchmark, "started", started)


def test_parts_count_every_request(servers_in_process, image_file, tmp_path) -> None:
    plot = tmp_path / "plot.png"
    flags = ["--image-file", image_file, "--requests", 12, "--at-once", 4, "--max-new-tokens", 4, "--plot", plot]
    flags += ["--max-queue-length", 0, "--overload", 1000, "--worker-flags=--adaptive-patience 0.001"]
    bench = benchmark.Bench(make_parser().parse_args(["load", *map(str, flags)]))
    report = bench.closed_loop()
    for way in ("batch", "one_by_one", "thread_a_request"):
        load = report[way]["under_load"]
        assert (load["answered"], load["refused"], load["lost"], load["different"]) == (12, 0, 0, 0), load["examples"]
        assert 0 < load["first_token_s"]["p50"] <= load["first_token_s"]["p95"] <= load["total_s"]["p95"]
        assert load["mean_budget_granted"] < 1
    assert all(ratio > 0 for ratio in report["throughput_of_batch_over"].values())
    report = bench.adaptive()
    for way in ("fixed", "adaptive"):
        assert report[way]["answered"] + report[way]["refused"] == 12 and report[way]["lost"] == 0
    assert report["fixed"]["refused"] > 0, "no request may wait, and all come at once"
    assert report["fixed"]["mean_budget_granted"] == 1 == report["fixed"]["least_multiplier"]
    with Image.open(plot) as image:
        assert image.format == "PNG" and image.width > 500


@pytest.fixture
def ten_a_second(monkeypatch) -> list[list[tuple]]:
    """Workers that answer ten requests a second in each slot; what each was asked, in the order of calls."""
    asked: list[list[tuple]] = []

    @contextlib.contextmanager
    def started(flags):
        slots = parse_worker_arguments(flags).limit_model_concurrency
        asked.append([])
        yield Servers(slots, "worker", "tiny", "v1")

    class TenASecond:
        def __init__(self, slots: int) -> None:
            self.slots = slots

        async def some_at_a_time(self, bodies, at_once) -> list[Result]:
            asked[-1].append((len(bodies), at_once))
            busy = min(self.slots, at_once)
            return [Result(n, n // busy / 10, 200, 0.1, 0.1) for n in range(len(bodies))]

        async def at_times(self, bodies, times) -> list[Result]:
            asked[-1].append((len(bodies), tuple(times)))
            return [Result(n, at, 200, 0.1, 0.1) for n, at in enumerate(times)]

    @contextlib.asynccontextmanager
    async def watched(worker):
        yield []

    for name, stand_in in {"started": started, "Load": TenASecond, "watched": watched}.items():
        monkeypatch.setattr(benchmark, name, stand_in)
    return asked


def adaptive(image_file, *flags: str) -> dict:
    made = make_parser().parse_args(["load", "--image-file", str(image_file), "--requests", "400", *flags])
    return benchmark.Bench(made).adaptive()


def test_overload_is_relative_to_what_a_worker_serves_that_batches(ten_a_second, image_file) -> None:
    report = adaptive(image_file, "--overload", "1.5", "--worker-flags=--limit-model-concurrency 4")
    assert report["capacity"]["answers_per_second"] == pytest.approx(40)
    assert report["unloaded"]["answers_per_second"] == pytest.approx(10)
    (*_, (_, times)), _ = ten_a_second
    assert len(times) / times[-1] == pytest.approx(1.5 * 40, rel=0.15)


@pytest.mark.parametrize(("slots", "queue"), [(1, 0), (1, 3), (8, 8)])
def test_every_worker_is_warmed_up_and_asked_in_the_same_way(ten_a_second, image_file, slots, queue) -> None:
    flags = f"--worker-flags=--limit-model-concurrency {slots}", "--max-queue-length", str(queue)
    adaptive(image_file, *flags)
    fixed, adapting = ten_a_second
    assert fixed == adapting and len(fixed) > 1
    highest = max(at_once for _, at_once in fixed[:-1])
    assert slots <= highest <= slots + queue, "it is busy, and refuses none"
    assert fixed[-2] == (400, 1), "the last ones let an adaptive worker's budget rise again"


@pytest.mark.slow
def test_program_runs_both_parts_with_real_processes(root, adaptive_checkpoint, image_file, tmp_path) -> None:
    plot = tmp_path / "plot.png"
    flags = ["--model-path", adaptive_checkpoint, "--image-file", image_file, "--requests", 8, "--at-once", 4]
    flags += ["--max-new-tokens", 4, "--max-queue-length", 0, "--overload", 50]
    flags += ["--worker-flags=--device cpu --limit-model-concurrency 1"]
    ran = subprocess.run(
        [sys.executable, "-m", "ada.bench", "load", *map(str, flags), "--plot", str(plot)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout.splitlines()[-1])
    for way in ("batch", "one_by_one", "thread_a_request"):
        load = report["together"][way]["under_load"]
        assert (load["answered"], load["refused"], load["lost"], load["different"]) == (8, 0, 0, 0)
        assert 0 < load["first_token_s"]["p50"] <= load["first_token_s"]["p95"] <= load["total_s"]["p95"]
    for way in ("fixed", "adaptive"):
        run = report["adaptive"][way]
        assert run["answered"] + run["refused"] == 8 and run["lost"] == 0
    assert report["adaptive"]["fixed"]["refused"] > 0, "no request may wait, and all come at once"
    with Image.open(plot) as image:
        assert image.format == "PNG" and image.width > 500


def test_program_with_a_worker_that_cannot_start_is_a_user_error(root) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "ada.bench.load", "--model-path", "nowhere/at/all", "--requests", "1"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert ran.returncode == 2 and "nowhere/at/all" in ran.stderr and "Traceback" not in ran.stderr, ran.stderr
