"""The load test: its figures by hand-counted cases, its requests, and the whole of it, small, with real processes."""

import contextlib
import json
import os
import subprocess
import sys

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from prometheus_client import CollectorRegistry

from ada.bench.load import benchmark as bench_load
from ada.bench.load.client import Result
from ada.bench.load.figures import differing, percentile, summary
from ada.bench.load.servers import Servers
from ada.bench.load.workload import arrivals, mixed, pictures_of
from ada.serve.budget_policy import BudgetPolicy
from llava.conversation import conv_templates
from llava.serve.controller import create_app as create_controller
from llava.serve.model_worker import ENGINES
from llava.serve.model_worker import parse_arguments as parse_worker_arguments
from llava.serve.worker.app import create_app as create_worker
from llava.serve.worker.service import WorkerService


@given(st.lists(st.floats(0, 100), min_size=1, max_size=40), st.sampled_from([0.5, 0.95, 1.0]))
def test_percentiles_by_counting(values, share) -> None:
    found = percentile(values, share)
    assert found in values and sum(value <= found for value in values) >= share * len(values)
    smaller = [value for value in values if value < found]
    assert not smaller or sum(value <= max(smaller) for value in values) < share * len(values)


def test_a_summary_counted_by_hand() -> None:
    results = [
        Result(0, 0.0, 200, 0.1, 1.0, "a", 4, 1.0),
        Result(1, 0.5, 200, 0.3, 1.5, "b", 6, 0.5),
        Result(2, 0.6, 429, failure="the queue is full"),
        Result(3, 0.7, 0, failure="ReadError: "),
        Result(4, 0.8, 200, 0.2, failure="the worker was lost"),
    ]
    got = summary(results)
    assert (got["requests"], got["answered"], got["refused"], got["lost"]) == (5, 2, 1, 2)
    assert got["first_token_s"] == {"p50": 0.1, "p95": 0.3} and got["total_s"] == {"p50": 1.0, "p95": 1.5}
    assert got["answers_per_second"] == pytest.approx(2 / 2.0) and got["tokens_per_second"] == pytest.approx(10 / 2.0)
    assert got["mean_budget_granted"] == 0.75
    assert summary(results[2:3])["answers_per_second"] is None
    other = [Result(result.index, 0.0, 200, 0.1, 1.0, "a", 4) for result in results]
    assert differing(results, other) == [{"request": 1, "alone": "a", "under_load": "b"}]


def test_requests_are_mixed_and_the_same_again() -> None:
    pictures = pictures_of(Image.effect_noise((6, 9), 90))
    assert len(set(pictures)) == 8
    requests = mixed(200, pictures, [1.0, 0.5], seed=3)
    assert requests == mixed(200, pictures, [1.0, 0.5], seed=3) != mixed(200, pictures, [1.0, 0.5], seed=4)
    assert {request.budget for request in requests} == {1.0, 0.5}
    assert 20 < sum(request.picture is None for request in requests) < 90
    for request in requests:
        body = request.body("m", conv_templates["v1"], 5)
        assert body["prompt"].count("<image>") == len(body["images"]) and body["temperature"] == 0
        assert body["prompt"].endswith(f"{request.words} ASSISTANT:")


def test_arrivals_keep_their_rate() -> None:
    times = arrivals(4000, 20.0)
    assert times == sorted(times) and times[-1] == pytest.approx(200, rel=0.1)


@pytest.fixture
def near(loaded, listen, monkeypatch):
    """The worker's flags to servers in this process, in place of processes."""

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

    monkeypatch.setattr(bench_load, "started", started)


def test_both_parts(near, picture, tmp_path) -> None:
    plot = tmp_path / "plot.png"
    flags = ["--image-file", picture, "--requests", 12, "--at-once", 4, "--max-new-tokens", 4, "--plot", plot]
    flags += ["--max-queue-length", 0, "--overload", 1000, "--worker-flags=--adaptive-patience 0.001"]
    bench = bench_load.Bench(bench_load.parse_arguments([str(flag) for flag in flags]))
    report = bench.together()
    for way in ("batch", "one_by_one", "thread_a_request"):
        load = report[way]["under_load"]
        assert (load["answered"], load["refused"], load["lost"], load["different"]) == (12, 0, 0, 0), load["examples"]
        assert 0 < load["first_token_s"]["p50"] <= load["first_token_s"]["p95"] <= load["total_s"]["p95"]
        assert load["mean_budget_granted"] < 1
    assert all(ratio > 0 for ratio in report["throughput_of_batch_over"].values())
    report = bench.adaptive()
    for way in ("fixed", "adaptive"):
        assert report[way]["answered"] + report[way]["refused"] == 12 and report[way]["lost"] == 0
    assert report["fixed"]["refused"] > 0, "nobody may wait, and they come all at once"
    assert report["fixed"]["mean_budget_granted"] == 1 == report["fixed"]["least_multiplier"]
    with Image.open(plot) as image:
        assert image.format == "PNG" and image.width > 500


@pytest.mark.slow
def test_the_whole_of_it(root, adaptive_checkpoint, picture, tmp_path) -> None:
    plot = tmp_path / "plot.png"
    flags = ["--model-path", adaptive_checkpoint, "--image-file", picture, "--requests", 8, "--at-once", 4]
    flags += ["--max-new-tokens", 4, "--max-queue-length", 0, "--overload", 50]
    flags += ["--worker-flags=--device cpu --limit-model-concurrency 1"]
    ran = subprocess.run(
        [sys.executable, "-m", "ada.bench.load", *map(str, flags), "--plot", str(plot)],
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
    assert report["adaptive"]["fixed"]["refused"] > 0, "nobody may wait, and they come all at once"
    with Image.open(plot) as image:
        assert image.format == "PNG" and image.width > 500


def test_a_worker_that_cannot_start_is_told(root) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "ada.bench.load", "--model-path", "nowhere/at/all", "--requests", "1"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert ran.returncode == 2 and "nowhere/at/all" in ran.stderr and "Traceback" not in ran.stderr, ran.stderr
