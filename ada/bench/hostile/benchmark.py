"""Runs the benchmark of hostile neighbours, and compares what was sent with what the servers have counted."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ada.bench.hostile.clients import LOST, PATH, End, HostileClients
from ada.bench.hostile.processes import counted, held
from ada.bench.hostile.workload import SIZES, draw_hostile, draw_small, image_url
from ada.bench.load.figures import percentile
from ada.bench.load.servers import Servers, started
from llava.errors import OptionError

log = logging.getLogger(__name__)

API_FLAGS = ("--head-timeout", "3", "--body-timeout", "3")  # so that late ones do not make the run long
WORKER_PATH = "/worker_generate_stream"
FIRST = 100  # requests after which memory is compared with that at the end
IDLE_S, SETTLE_S = 2.0, 60.0  # without requests before processes are read; until the servers have noticed who left
LEFT = "499"


def run_hostile(args: argparse.Namespace) -> int:
    """Run both loads and print the figures as one line of JSON; return the exit code."""
    if min(args.requests, args.small_clients, args.hostile_clients, args.max_new_tokens) < 1:
        raise OptionError("--requests, --small-clients, --hostile-clients and --max-new-tokens must be above 0")
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
    small_count = args.requests // 2
    small = draw_small(small_count, args.seed)
    hostile = draw_hostile(args.requests - small_count, round(args.cancelled * args.requests), args.seed + 1)

    async def send(first: int, last: int) -> list[End]:
        """Send this part of both kinds of requests, each kind from its own clients."""
        parts = small[first // 2 : last // 2], hostile[first // 2 : last // 2]
        both = await asyncio.gather(
            clients.send(parts[0], args.small_clients), clients.send(parts[1], args.hostile_clients)
        )
        return [*both[0], *both[1]]

    before = held(servers.processes)
    log.info("%d small requests alone", small_count)
    alone = asyncio.run(clients.send(small, args.small_clients))
    log.info("the same, and %d others", len(hostile))
    ends = asyncio.run(send(0, FIRST))
    time.sleep(IDLE_S)
    after_first = held(servers.processes)
    ends += asyncio.run(send(FIRST, args.requests + 2))
    sent = [*alone, *ends]
    checks = _settled(lambda: _counters(servers, sent))
    time.sleep(IDLE_S)
    after = held(servers.processes)
    lost = [f"{end.request.kind}: {end.failure}" for end in sent if end.status == LOST]
    quiet_p95_s, p95_s = (_p95_of_small(part) for part in (alone, ends))
    return {
        "sent": len(sent),
        "lost": lost,
        "ends": _ends_by_kind(ends),
        "counters": checks,
        "accounted": not lost and all(check["equal"] for check in checks.values()),
        "small_p95_s": {"alone": quiet_p95_s, "among_hostile": p95_s, "ratio": p95_s / quiet_p95_s},
        "held": {"before": before, f"after_{FIRST}": after_first, "after": after},
        "worker_memory_ratio": after["worker"]["memory_mib"] / after_first["worker"]["memory_mib"],
    }


def _p95_of_small(ends: Sequence[End]) -> float:
    return percentile([end.total_s for end in ends if end.request.is_small], 0.95) or float("nan")


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
