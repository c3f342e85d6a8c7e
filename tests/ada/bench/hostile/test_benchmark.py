"""The benchmark of hostile clients against real servers, in its small setting; how it judges counters."""

import json
from collections import Counter

import pytest

from ada.bench.__main__ import main
from ada.bench.hostile import benchmark, workload
from ada.bench.hostile.clients import LOST, End
from ada.bench.hostile.workload import CANCELLED, HostileRequest
from ada.bench.load.servers import Servers

SERVERS = Servers("controller", "worker", "tiny", None, "api")


def end(kind: str, status: int | None, failure: str | None = None) -> End:
    return End(HostileRequest(kind, "w5"), status, 1.0, failure)


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


@pytest.mark.parametrize("flags", ["--requests 0", "--cancelled 0.6", "--cancelled -1", "--hostile-clients 0"])
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
    assert report["accounted"] and report["lost"] == [] and report["sent"] == 12 + 24
    assert report["ends"]["late head"].keys() <= {"408"} and report["counters"]["api"]["equal"]
    assert set(report["held"]["after"]) == {"controller", "worker", "api"}
    assert LOST not in {status for ends in report["ends"].values() for status in ends}
