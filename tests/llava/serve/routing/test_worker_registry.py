"""Which workers a controller knows and chooses, against counting by hand; which addresses it takes."""

import random
from collections import Counter

import pytest

from llava.errors import OptionError
from llava.serve.protocol.schemas import WorkerStatus
from llava.serve.routing.worker_address import checked_address
from llava.serve.routing.worker_registry import WorkerRegistry


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


def test_the_shortest_queue_for_its_speed(make_registry) -> None:
    registry = make_registry("shortest_queue", slow=(["m"], 1, 2), quick=(["m"], 4, 4), other=(["n"], 9, 0))
    # queue / speed: slow 2, quick 1; each choice adds one to its queue.
    assert [registry.choose("m") for _ in range(6)] == ["quick"] * 4 + ["slow", "quick"]
    assert registry.choose("n") == "other" and registry.choose("nothing") is None
    assert registry.choose("m", exclude=["quick"]) == "slow"
    assert registry.choose("m", exclude=["quick", "slow"]) is None
    assert registry.receive_heartbeat("quick", 0) and registry.choose("m") == "quick"


def test_the_lottery_draws_by_speed(make_registry) -> None:
    registry = make_registry("lottery", slow=(["m"], 1, 0), quick=(["m"], 3, 0), other=(["n"], 100, 0))
    drawn = Counter(registry.choose("m") for _ in range(2000))
    assert set(drawn) == {"slow", "quick"} and drawn["quick"] == pytest.approx(1500, abs=80)


def test_silent_workers_are_forgotten_and_unchecked_ones_are_not(make_registry, now) -> None:
    registry = make_registry("shortest_queue", a=(["m"], 1, 0), b=(["n"], 1, 0))
    registry.register("still", False, WorkerStatus(model_names=["s"]))
    now[0] = 20.0
    assert registry.receive_heartbeat("b", 3)
    now[0] = 30.0
    assert registry.models() == ["m", "n", "s"], "thirty seconds are not more than thirty"
    now[0] = 30.5
    assert registry.models() == ["n", "s"] and registry.choose("m") is None
    assert not registry.receive_heartbeat("a", 0), "it is told to register again"
    now[0] = 1000.0
    assert registry.models() == ["s"]


def test_all_workers_as_one(make_registry) -> None:
    registry = make_registry("lottery", a=(["m", "n"], 1, 2), b=(["n"], 2.5, 3))
    assert registry.total().model_dump() == {"model_names": ["m", "n"], "speed": 3.5, "queue_length": 5}
    assert registry.forget("a", "test") and not registry.forget("a", "test")
    assert make_registry("lottery").total().model_dump() == {"model_names": [], "speed": 0, "queue_length": 0}


@pytest.mark.parametrize(
    ("address", "form"),
    [
        ("http://localhost:21002", "http://localhost:21002"),
        ("http://localhost:21002/", "http://localhost:21002"),
        ("https://127.0.0.1:1", "https://127.0.0.1:1"),
        ("http://127.9.9.9", "http://127.9.9.9"),
        ("http://[::1]:21002", "http://[::1]:21002"),
    ],
)
def test_addresses_of_this_machine(address, form) -> None:
    assert checked_address(address, loopback_only=True) == form


@pytest.mark.parametrize(
    "address",
    ["http://10.0.0.7:21002", "https://worker-3.example.org", "http://[2001:db8::1]:80", "http://0x0a000007:21002"],
)
def test_other_machines_need_a_token(address) -> None:
    assert checked_address(address)
    with pytest.raises(OptionError, match="--registration-token"):
        checked_address(address, loopback_only=True)


BAD = """
localhost:21002 ftp://localhost:21002 file:///etc/passwd http:// http://:21002 http://localhost:0
http://localhost:99999 http://localhost:x http://user@localhost:1 http://user:word@localhost:1 http://localhost:1/path
http://localhost:1?query http://localhost:1#part http://169.254.169.254 http://[fe80::1]:80 http://0.0.0.0:21002
http://[::]:21002 http://224.0.0.1 http://[::ffff:169.254.169.254] http://0xa9fea9fe http://169.254.43518 http://0251.0376.0251.0376
http://2852039166 //localhost:21002 javascript:alert(1) http://[::1
""".split()


@pytest.mark.parametrize("address", [*BAD, "", " ", "http://local host:1", "http://localhost:1\n", "http://löcal:1"])
def test_addresses_that_no_worker_has(address) -> None:
    with pytest.raises(OptionError, match="worker's address is"):
        checked_address(address)
