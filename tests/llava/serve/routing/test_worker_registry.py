"""Which workers a controller knows and which one it chooses, against counting by hand."""

import random
from collections import Counter

import pytest
from fixtures.serving import metric_samples
from prometheus_client import generate_latest

from llava.serve.protocol.errors import RequestFailure
from llava.serve.protocol.schemas import WorkerStatus
from llava.serve.routing.worker_registry import MAX_WORKERS, WorkerRegistry


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def make_registry(now):
    def make(method: str, **workers: tuple[list[str], float, int]) -> WorkerRegistry:
        registry = WorkerRegistry(method, 30.0, clock=lambda: now[0], rng=random.Random(0))
        for name, (models, speed, queue) in workers.items():
            registry.register(name, True, WorkerStatus(model_names=models, speed=speed, queue_length=queue))
        return registry

    return make


def test_choose_shortest_queue_divides_by_speed(make_registry) -> None:
    registry = make_registry("shortest_queue", slow=(["m"], 1, 2), quick=(["m"], 4, 4), other=(["n"], 9, 0))
    # queue / speed: slow 2, quick 1; each choice adds one to its queue.
    assert [registry.choose("m") for _ in range(6)] == ["quick"] * 4 + ["slow", "quick"]


def test_choose_heartbeat_replaces_the_estimated_queue(make_registry) -> None:
    registry = make_registry("shortest_queue", slow=(["m"], 1, 2), quick=(["m"], 4, 40))
    assert registry.choose("m") == "slow"
    assert registry.receive_heartbeat("quick", 0) and registry.choose("m") == "quick"


def test_choose_takes_only_workers_of_the_model(make_registry) -> None:
    registry = make_registry("shortest_queue", one=(["m"], 1, 5), other=(["n"], 9, 0))
    assert registry.choose("m") == "one"
    assert registry.choose("n") == "other"
    assert registry.choose("nothing") is None


def test_choose_leaves_out_excluded_workers(make_registry) -> None:
    registry = make_registry("shortest_queue", slow=(["m"], 1, 2), quick=(["m"], 4, 4))
    assert registry.choose("m", exclude=["quick"]) == "slow"
    assert registry.choose("m", exclude=["quick", "slow"]) is None


def test_choose_lottery_draws_by_speed(make_registry) -> None:
    registry = make_registry("lottery", slow=(["m"], 1, 0), quick=(["m"], 3, 0), other=(["n"], 100, 0))
    drawn = Counter(registry.choose("m") for _ in range(2000))
    assert set(drawn) == {"slow", "quick"} and drawn["quick"] == pytest.approx(1500, abs=80)


def test_worker_without_heartbeat_is_forgotten_after_the_expiration(make_registry, now) -> None:
    registry = make_registry("shortest_queue", a=(["m"], 1, 0), b=(["n"], 1, 0))
    now[0] = 20.0
    assert registry.receive_heartbeat("b", 3)
    now[0] = 30.0
    assert registry.models() == ["m", "n"], "thirty seconds are not more than thirty"
    now[0] = 30.5
    assert registry.models() == ["n"] and registry.choose("m") is None
    assert not registry.receive_heartbeat("a", 0), "it should register again"


def test_worker_that_is_not_checked_never_expires(make_registry, now) -> None:
    registry = make_registry("shortest_queue")
    registry.register("still", False, WorkerStatus(model_names=["s"]))
    now[0] = 1000.0
    assert registry.models() == ["s"]


def test_total_adds_models_speeds_and_queues(make_registry) -> None:
    registry = make_registry("lottery", a=(["m", "n"], 1, 2), b=(["n"], 2.5, 3))
    assert registry.total().model_dump() == {"model_names": ["m", "n"], "speed": 3.5, "queue_length": 5}


def test_total_without_workers_is_zero(make_registry) -> None:
    assert make_registry("lottery").total().model_dump() == {"model_names": [], "speed": 0, "queue_length": 0}


def test_forget_says_whether_the_worker_was_registered(make_registry) -> None:
    registry = make_registry("lottery", a=(["m"], 1, 2))
    assert registry.forget("a", "test")
    assert not registry.forget("a", "test")


def test_choose_idle_workers_take_turns(make_registry, now) -> None:
    registry = make_registry("shortest_queue", a=(["m"], 1, 0), b=(["m"], 1, 0), c=(["m"], 1, 0))
    chosen = []
    for _ in range(9):
        chosen.append(registry.choose("m"))
        for name in "abc":  # each has answered before the next request comes
            registry.receive_heartbeat(name, 0)
    assert chosen == ["a", "b", "c"] * 3


@pytest.mark.parametrize("load", [0, 3])
def test_choose_equal_loads_share_requests_evenly_whatever_the_speeds(make_registry, load) -> None:
    registry = make_registry("shortest_queue", slow=(["m"], 1, load), quick=(["m"], 2, 2 * load))
    counts: Counter = Counter()
    for _ in range(100):
        counts[registry.choose("m")] += 1
        registry.receive_heartbeat("slow", load)
        registry.receive_heartbeat("quick", 2 * load)
    assert counts == {"slow": 50, "quick": 50}


def test_choose_turn_survives_registering_again(make_registry) -> None:
    registry = make_registry("shortest_queue", a=(["m"], 1, 0), b=(["m"], 1, 0))
    assert registry.choose("m") == "a"
    registry.register("a", True, WorkerStatus(model_names=["m"]))
    registry.receive_heartbeat("b", 0)
    assert registry.choose("m") == "b"


def test_register_more_than_the_maximum_is_refused_and_known_ones_may_return(make_registry, now) -> None:
    registry = make_registry("shortest_queue")
    status = WorkerStatus(model_names=["m"])
    for number in range(MAX_WORKERS):
        registry.register(f"http://localhost:{number}", True, status)
    with pytest.raises(RequestFailure, match=str(MAX_WORKERS)):
        registry.register("http://localhost:9999", True, status)
    registry.register("http://localhost:0", True, status)
    now[0] = 31.0
    registry.register("http://localhost:9999", True, status)
    assert list(registry.workers()) == ["http://localhost:9999"], "those without a heartbeat make way"


def test_register_logs_a_bounded_line(make_registry, caplog) -> None:
    caplog.set_level("INFO")
    make_registry("shortest_queue", a=(["m" * 300] * 100, 1, 0))
    assert all(len(record.getMessage()) < 10_000 for record in caplog.records)


def test_metrics_count_workers_and_their_requests(make_registry) -> None:
    registry = make_registry("shortest_queue", a=(["m"], 1, 2), b=(["n"], 1, 3))
    samples = metric_samples(generate_latest(registry.metrics()).decode())
    assert (samples["llava:num_workers"], samples["llava:num_requests"]) == (2, 5)
