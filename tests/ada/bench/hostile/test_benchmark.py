"""The benchmark of hostile clients against real servers, in its small setting; how it judges counters."""

import json
from argparse import Namespace
from collections import Counter

import pytest

from ada.bench.__main__ import main
from ada.bench.hostile import benchmark, workload
from ada.bench.hostile.clients import LOST, End
from ada.bench.hostile.workload import CANCELLED, HostileRequest
from ada.bench.load.servers import Servers
from llava.errors import OptionError

SERVERS = Servers("controller", "worker", "tiny", None, "api")


def end(kind: str, status: int | None, failure: str | None = None) -> End:
    return End(HostileRequest(kind, "w5"), status, 0.0, 1.0, failure)


@pytest.fixture
def judged(monkeypatch):
    """``judged(sent, api={...}, controller={...}, worker={...})``: whether the counters are equal, by check."""

    def judge(sent, api, controller, worker) -> dict[str, bool]:
        def counted(address: str, name: str, **labels: str) -> Counter:
            if address == "api":
                return Counter(api) if labels["handler"] != "none" else Counter()
            if address == "controller":
                return Counter(controller)
            return Counter(worker) if "success" in name else Counter()

        monkeypatch.setattr(benchmark, "counted", counted)
        return {name: check["equal"] for name, check in benchmark._counters(SERVERS, sent).items()}

    return judge


ANSWERED = [end("text", 200), end("no chat", 400), end(CANCELLED, None)]


@pytest.mark.parametrize(
    ("sent", "api", "equal"),
    [
        (ANSWERED, {"200": 1, "400": 1, "499": 1}, True),
        (ANSWERED, {"200": 2, "400": 1}, True),  # it was answered before its client had left
        (ANSWERED, {"200": 1, "400": 1}, False),
        (ANSWERED, {"200": 1, "400": 2, "499": 1}, False),
        (ANSWERED, {"400": 1, "499": 2}, False),
        (ANSWERED, {"200": 1, "400": 1, "499": 2}, False),
        ([end("late head", 408)], {"408": 1}, True),
        ([end("text", 200, "timeout")], {"504": 1}, True),
    ],
)
def test_counters_of_the_api_are_compared_with_what_was_seen(judged, sent, api, equal) -> None:
    assert judged(sent, api, {"200": 1}, {"stop": 1})["api"] == equal


@pytest.mark.parametrize(
    ("controller", "worker", "equal"),
    [
        ({"200": 2, "499": 1}, {"stop": 2, "abort": 1}, True),
        ({"200": 2, "499": 1}, {"stop": 2}, True),  # its client left before the controller had all of it
        ({"200": 2}, {"stop": 1}, False),
        ({"200": 2}, {"stop": 3}, False),
    ],
)
def test_counters_of_worker_and_controller_are_compared(judged, controller, worker, equal) -> None:
    assert judged([], {}, controller, worker)["worker"] == equal


class Recorder:
    """Stands for the clients. Small requests take 0.1 s one at a time, else 2 s; among hostile ones, all except the
    first are refused at once."""

    def __init__(self, *_) -> None:
        self.calls = []

    async def send(self, small, times, hostile=(), hostile_clients=1) -> list[End]:
        if not small:
            return [End(request, 200, 0.0, 0.1) for request in hostile]
        self.calls.append((small, times, hostile))
        ends = [End(request, 200, at, 2.0) for request, at in zip(small, times, strict=True)]
        if hostile:
            ends[1:] = [End(refused.request, 429, refused.due_s, 0.01) for refused in ends[1:]]
        return ends + [End(request, 200, 0.0, times[9]) for request in hostile[:1]]


@pytest.fixture
def recorded(monkeypatch):
    """``(report, calls)`` of a run of 120 requests whose clients are a ``Recorder``."""
    recorder = Recorder()
    monkeypatch.setattr(benchmark, "HostileClients", lambda *_: recorder)
    monkeypatch.setattr(benchmark, "held", lambda _: {"worker": {"memory_mib": 1.0}})
    monkeypatch.setattr(benchmark, "counted", lambda *_, **__: Counter())
    monkeypatch.setattr(benchmark, "IDLE_S", 0.0)
    monkeypatch.setattr(benchmark, "SETTLE_S", 0.0)
    flags = Namespace(requests=120, small_load=0.5, hostile_clients=4, cancelled=0.1, max_new_tokens=4, seed=0)
    return benchmark._run(flags, SERVERS), recorder.calls


def test_small_requests_are_due_at_the_same_times_alone_and_among_hostile_ones(recorded) -> None:
    report, (*alone, first, rest) = recorded
    assert [call[:2] for call in alone] == [first[:2], rest[:2]] and not any(hostile for *_, hostile in alone)
    assert (len(first[0]), len(rest[0]), len(first[2]), len(rest[2])) == (50, 10, 50, 10)
    assert first[1][-1] == pytest.approx(50 / 5, rel=0.3), "half of the ten a second that one at a time would be"
    assert report["small_answered"]["alone"] == 9 + 9, "the others end as the tenth of each part is due"


def test_refusals_are_not_counted_as_fast_small_requests(recorded) -> None:
    report, _ = recorded
    assert report["small_p95_s"] == {"alone": 2.0, "among_hostile": 2.0, "ratio": 1.0}
    assert report["small_not_answered"] == {"alone": 0, "among_hostile": 8 + 8}
    assert report["small_answered"] == {"alone": 9 + 9, "among_hostile": 1 + 1}


def test_server_that_answers_no_small_request_is_a_user_error() -> None:
    with pytest.raises(OptionError, match="one at a time: 429, timeout"):
        benchmark._answer_s([end("text", 429), end("text", 200, "timeout")])


def test_run_without_an_answer_to_small_requests_has_no_p95() -> None:
    among_hostile = [end("text", 429), end("text", 200, "timeout"), end("no chat", 400)]
    found = benchmark._of_small([[end("text", 200)]], [among_hostile])
    assert found["small_p95_s"] == {"alone": 1.0, "among_hostile": None, "ratio": None}
    assert found["small_not_answered"] == {"alone": 0, "among_hostile": 2}


@pytest.mark.parametrize(
    "flags", ["--requests 0", "--cancelled 0.6", "--cancelled -1", "--hostile-clients 0", "--small-load 0"]
)
def test_bad_flags_are_user_errors(flags, capsys) -> None:
    assert main(["hostile", *flags.split()]) == 2
    assert flags.split()[0] in capsys.readouterr().err


def test_hostile_small_setting_accounts_for_every_request(monkeypatch, capsys, adaptive_checkpoint) -> None:
    shares = {kind: 1 for kind in workload.SHARES if "image" not in kind}
    monkeypatch.setattr(workload, "SHARES", {**shares, "medium image": 1})
    flags = f"--requests 24 --cancelled 0.2 --model-path {adaptive_checkpoint} --max-new-tokens 4"
    code = main(["hostile", *flags.split()])
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert code == 0, report
    assert report["accounted"] and report["lost"] == [] and report["sent"] == benchmark.WARM_UP + 12 + 24
    assert report["ends"]["late head"].keys() <= {"408"} and report["counters"]["api"]["equal"]
    assert report["small_not_answered"] == {"alone": 0, "among_hostile": 0} and report["small_answered"]["alone"] > 0
    assert set(report["held"]["after"]) == {"controller", "worker", "api"}
    assert LOST not in {status for ends in report["ends"].values() for status in ends}
