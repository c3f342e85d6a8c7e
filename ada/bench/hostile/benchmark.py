"""Runs the benchmark of hostile neighbours, and compares what was sent with what the servers have counted."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import shlex
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ada.bench.hostile.clients import LOST, PATH, End, HostileClients
from ada.bench.hostile.processes import counted, held
from ada.bench.hostile.workload import SIZES, HostileRequest, draw_hostile, draw_small, image_url
from ada.bench.load.figures import percentile
from ada.bench.load.servers import Servers, started
from ada.bench.load.workload import arrivals
from llava.errors import OptionError

log = logging.getLogger(__name__)

API_FLAGS = ("--head-timeout", "3", "--body-timeout", "3")  # so that late ones do not make the run long
WORKER_PATH = "/worker_generate_stream"
WARM_UP = 10  # small requests, which show how many can come
FIRST = 100  # requests after which memory is compared with that at the end
IDLE_S, SETTLE_S = 2.0, 60.0  # without requests before processes are read; until the servers have noticed who left
LEFT = "499"


@dataclass(frozen=True)
class Part:
    """Requests that are sent together: small ones, with the second at which each is due, and hostile ones."""

    small: Sequence[HostileRequest]
    times: Sequence[float]
    hostile: Sequence[HostileRequest]


def run_hostile(args: argparse.Namespace) -> int:
    """Run both loads and print the figures as one line of JSON; return the exit code."""
    if min(args.requests, args.hostile_clients, args.max_new_tokens) < 1 or not args.small_load > 0:
        raise OptionError("--requests, --small-load, --hostile-clients and --max-new-tokens must be above 0")
    if not 0 <= args.cancelled <= 0.5:
        raise OptionError(f"--cancelled is {args.cancelled:g}; expected a share from 0 to 0.5")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves the blocks that stop the servers
    for kind in SIZES:
        image_url(kind)  # made before anything is timed
    flags = [*(["--model-path", args.model_path] if args.model_path else []), *shlex.split(args.worker_flags)]
    with started(flags, API_FLAGS) as servers:
        report = _run(args, servers)
    print(json.dumps(report))
    return 0 if report["accounted"] else 1


def _run(args: argparse.Namespace, servers: Servers) -> dict[str, Any]:
    assert servers.api is not None
    clients = HostileClients(servers.api, servers.model, args.max_new_tokens)

    def among_hostile(part: Part) -> list[End]:
        return asyncio.run(clients.send(part.small, part.times, part.hostile, args.hostile_clients))

    before = held(servers.processes)
    warm_up = asyncio.run(clients.send([], [], draw_small(WARM_UP, args.seed), hostile_clients=1))
    parts = _parts(args, args.small_load / _answer_s(warm_up))
    log.info("%d small requests alone", sum(len(part.small) for part in parts))
    alone = [asyncio.run(clients.send(part.small, part.times)) for part in parts]
    log.info("the same, and %d others", sum(len(part.hostile) for part in parts))
    among = [among_hostile(parts[0])]
    time.sleep(IDLE_S)
    after_first = held(servers.processes)
    among.append(among_hostile(parts[1]))
    ends = [*among[0], *among[1]]
    sent = [*warm_up, *alone[0], *alone[1], *ends]
    checks = _settled(lambda: _counters(servers, sent))
    time.sleep(IDLE_S)
    after = held(servers.processes)
    lost = [f"{end.request.kind}: {end.failure}" for end in sent if end.status == LOST]
    return {
        "sent": len(sent),
        "lost": lost,
        "ends": _ends_by_kind(ends),
        "counters": checks,
        "accounted": not lost and all(check["equal"] for check in checks.values()),
        **_of_small(alone, among),
        "held": {"before": before, f"after_{FIRST}": after_first, "after": after},
        "worker_memory_ratio": after["worker"]["memory_mib"] / after_first["worker"]["memory_mib"],
    }


def _answer_s(ends: Sequence[End]) -> float:
    """Return the median seconds of an answer. Raises OptionError where there is none."""
    took_s = [end.total_s for end in ends if end.answered]
    if not took_s:
        said = ", ".join(sorted({end.failure or str(end.status) for end in ends}))
        raise OptionError(f"none of {len(ends)} small requests was answered, one at a time: {said}")
    return statistics.median(took_s)


def _parts(args: argparse.Namespace, small_rate: float) -> list[Part]:
    """Draw all requests, in two parts: the first ``FIRST``, half of them small, and the others.

    small_rate: small requests a second, on average.
    """
    small_count = args.requests // 2
    small = draw_small(small_count, args.seed)
    hostile = draw_hostile(args.requests - small_count, round(args.cancelled * args.requests), args.seed + 1)
    parts = []
    for seed, part in enumerate([slice(FIRST // 2), slice(FIRST // 2, None)], start=args.seed):
        times = arrivals(len(small[part]), small_rate, seed)
        parts.append(Part(small[part], times, hostile[part]))
    return parts


def _of_small(alone: Sequence[Sequence[End]], among_hostile: Sequence[Sequence[End]]) -> dict[str, dict[str, Any]]:
    """Return the p95 in seconds of the small requests that were answered, and how many were and were not.

    alone, among_hostile: the ends of each part. Of both runs those count that were due while hostile ones came: what
    is due after them has no neighbours. A refusal is quick, and no answer: it must not count as a fast one.
    """
    last_s = [_last_s(end for end in ends if not end.request.is_small) for ends in among_hostile]

    def due_by_then(parts: Sequence[Sequence[End]]) -> list[End]:
        both = zip(parts, last_s, strict=True)
        return [end for ends, last in both for end in ends if end.request.is_small and end.due_s < last]

    runs = {"alone": due_by_then(alone), "among_hostile": due_by_then(among_hostile)}
    took_s = {name: [end.total_s for end in ends if end.answered] for name, ends in runs.items()}
    quiet_p95_s, p95_s = (percentile(values, 0.95) for values in took_s.values())
    ratio = p95_s / quiet_p95_s if quiet_p95_s and p95_s is not None else None
    return {
        "small_p95_s": {"alone": quiet_p95_s, "among_hostile": p95_s, "ratio": ratio},
        "small_answered": {name: len(values) for name, values in took_s.items()},
        "small_not_answered": {name: len(ends) - len(took_s[name]) for name, ends in runs.items()},
    }


def _last_s(ends: Iterable[End]) -> float:
    """Return the second at which the last one ended; 0 where there are none."""
    return max((end.due_s + end.total_s for end in ends), default=0.0)


def _counters(servers: Servers, sent: Sequence[End]) -> dict[str, dict[str, Any]]:
    """Compare what was sent with the API's counters, and the controller's with the worker's."""
    assert servers.api is not None
    by_api = counted(servers.api, "http_requests_total", handler=PATH)
    by_api += counted(servers.api, "http_requests_total", handler="none")
    by_controller = counted(servers.controller, "http_requests_total", handler=WORKER_PATH)
    by_worker = counted(servers.worker, "request_success_total") + counted(servers.worker, "requests_rejected_total")
    seen = Counter(str(end.status) for end in sent if end.status is not None and end.failure is None)
    uncertain = sum(end.status is None or end.failure is not None for end in sent)  # they may count as 200, 499 or 5xx
    certain = {status: number for status, number in seen.items() if not status.startswith(("2", "5"))}
    return {
        "api": {
            "counted": dict(by_api),
            "seen": dict(seen),
            "left": uncertain,
            "equal": by_api.total() == len(sent)
            and all(by_api[status] == number for status, number in certain.items())
            and by_api["200"] >= seen["200"]
            and by_api[LEFT] <= uncertain,
        },
        # A request whose sender left before all of it had arrived at the controller never reached the worker.
        "worker": {
            "counted": dict(by_worker),
            "controller": dict(by_controller),
            "equal": by_controller.total() - by_controller[LEFT] <= by_worker.total() <= by_controller.total(),
        },
    }


def _settled(check: Callable[[], dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return the checks once all are equal, or after ``SETTLE_S``: servers notice some moments later who has left."""
    deadline = time.monotonic() + SETTLE_S
    checks = check()
    while not all(part["equal"] for part in checks.values()) and time.monotonic() < deadline:
        time.sleep(0.5)
        checks = check()
    return checks


def _ends_by_kind(ends: Sequence[End]) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = {}
    for end in ends:
        said = "left" if end.status is None else end.failure or str(end.status)
        found.setdefault(end.request.kind, Counter())[said] += 1
    return {kind: dict(counter) for kind, counter in sorted(found.items())}
