"""Runs the parts of the load benchmark against servers that it starts."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import shlex
import signal
import sys
from typing import Any

from ada.bench.load.client import Load, Result, watched
from ada.bench.load.figures import differing, draw, summary
from ada.bench.load.servers import Servers, started
from ada.bench.load.workload import ADAPTIVE, CLOSED_LOOP, LoadRequest, arrivals, image_variants, mixed
from llava.conversation import Conversation, conv_templates, template_of_name
from llava.errors import OptionError
from llava.mm_utils import load_image
from llava.serve.model_worker import parse_arguments as parse_worker_arguments

log = logging.getLogger(__name__)

BATCH = "batch"
LONG_QUEUE = 10_000  # requests that may wait: none is refused


class Bench:
    """The parts of the benchmark, by the flags of ``ada.bench.load.command``."""

    def __init__(self, args: argparse.Namespace) -> None:
        if min(args.requests, args.at_once, args.max_new_tokens, args.turns) < 1 or not args.overload > 0:
            raise OptionError("--requests, --at-once, --turns, --max-new-tokens and --overload must be above 0")
        self.args = args
        self.images = image_variants(load_image(args.image_file))
        self.common = [*(["--model-path", args.model_path] if args.model_path else []), *shlex.split(args.worker_flags)]

    def bodies(self, requests: list[LoadRequest], servers: Servers) -> list[dict[str, Any]]:
        """Return the JSON bodies of ``requests``, with the prompts of this worker's model.

        Each is read anew: what was asked before, alone or of another worker, would else be found.
        """
        template = _template(servers)
        made = [request.body(servers.model, template, self.args.max_new_tokens) for request in requests]
        return [{**body, "reuse": False} for body in made]

    def closed_loop(self) -> dict[str, Any]:
        """Run the same requests at workers that batch, that answer one by one, and that run a thread for each."""
        args = self.args
        requests = mixed(args.requests, self.images, args.budgets, args.seed, args.turns)
        queue = ["--max-queue-length", str(LONG_QUEUE), "--queue-timeout", "600"]
        one, all_at_once = (["--limit-model-concurrency", str(count)] for count in (1, args.at_once))
        ways = {
            BATCH: [*queue, "--limit-model-concurrency", str(args.max_batch)],
            "one_by_one": [*queue, "--engine", "threads", *one],
            "thread_a_request": [*queue, "--engine", "threads", *all_at_once],
        }
        report: dict[str, Any] = {}
        for way, flags in ways.items():
            with started([*self.common, *flags]) as servers:
                bodies, load = self.bodies(requests, servers), Load(servers.controller)
                log.info("%s: %d requests, one at a time", way, len(bodies))
                alone = _all_answered(asyncio.run(load.some_at_a_time(bodies, 1)))
                log.info("%s: the same, %d at a time", way, args.at_once)
                under_load = asyncio.run(load.some_at_a_time(bodies, args.at_once))
            different = differing(under_load, alone)
            report[way] = {
                "alone": summary(alone),
                "under_load": {**summary(under_load), "different": len(different), "examples": different[:5]},
            }
        rates = {way: report[way]["under_load"]["answers_per_second"] for way in ways}
        report["throughput_of_batch_over"] = {
            way: rates[BATCH] / rate if rate and rates[BATCH] else None for way, rate in rates.items() if way != BATCH
        }
        return report

    def adaptive(self) -> dict[str, Any]:
        """Run the same arrivals at a worker of fixed budgets and at one that adapts.

        Both are warmed up in the same way; how many requests come is set by what the first one served there.
        """
        args = self.args
        requests = mixed(args.requests, self.images, [None], args.seed, args.turns)
        queue = ["--max-queue-length", str(args.max_queue_length)]
        ways = {"fixed": queue, "adaptive": [*queue, "--adaptive-budget", str(args.least_budget)]}
        runs, report = {}, {}
        times: list[float] = []
        unloaded_s = 0.0
        for way, flags in ways.items():
            worker_flags = [*self.common, *flags]
            with started(worker_flags) as servers:
                bodies, load = self.bodies(requests, servers), Load(servers.controller)
                log.info("%s: warms up", way)
                full, alone = asyncio.run(_warmed_up(load, bodies, _busy_with(worker_flags)))
                if not times:
                    report["capacity"], report["unloaded"] = summary(full), summary(alone)
                    unloaded_s = report["unloaded"]["first_token_s"]["p95"]
                    rate = args.overload * report["capacity"]["answers_per_second"]
                    times = arrivals(len(bodies), rate, args.seed)
                log.info("%s: %d arrivals within %.0f s", way, len(times), times[-1])
                runs[way] = asyncio.run(_watched_run(load, servers, bodies, times))
            report[way] = summary(runs[way][0])
            report[way]["least_multiplier"] = min(
                (sample["budget_multiplier"] for sample in runs[way][1] if "budget_multiplier" in sample), default=None
            )
        report.update(_verdict(report, unloaded_s))
        if args.plot is not None:
            draw(args.plot, runs, unloaded_s)
        return report


def _template(servers: Servers) -> Conversation:
    mode = servers.conv_mode
    return conv_templates[mode] if mode in conv_templates else template_of_name(servers.model)


def _all_answered(results: list[Result]) -> list[Result]:
    bad = next((result for result in results if not result.answered), None)
    if bad is not None:
        raise OptionError(f"request {bad.index} was not answered, though the worker was not full: {bad.failure}")
    return results


def _busy_with(worker_flags: list[str]) -> int:
    """Return how many requests at a time keep a worker busy: all it runs, some that wait for a place, none refused."""
    args = parse_worker_arguments(worker_flags)
    running, waiting = args.limit_model_concurrency, args.max_queue_length
    return int(running + waiting // 2)


async def _warmed_up(load: Load, bodies: list[dict[str, Any]], at_once: int) -> tuple[list[Result], list[Result]]:
    """Warm a worker up; return what became of all requests ``at_once`` at a time, and of the same one at a time.

    Those come last: after them a worker that adapts is at its full budget again.
    """
    await load.some_at_a_time(bodies[:at_once], at_once)  # the first ones are slower
    full = _all_answered(await load.some_at_a_time(bodies, at_once))
    return full, _all_answered(await load.some_at_a_time(bodies, 1))


async def _watched_run(
    load: Load, servers: Servers, bodies: list[dict[str, Any]], times: list[float]
) -> tuple[list[Result], list[dict[str, float]]]:
    async with watched(servers.worker) as samples:
        return await load.at_times(bodies, times), samples


def _verdict(report: dict[str, Any], unloaded_s: float) -> dict[str, Any]:
    p95_s, refused = report["adaptive"]["first_token_s"]["p95"], report["fixed"]["refused"]
    return {
        "first_token_p95_over_unloaded": p95_s / unloaded_s if p95_s is not None else None,
        "refusals_over_fixed": report["adaptive"]["refused"] / refused if refused else None,
    }


def run_parts(args: argparse.Namespace) -> None:
    """Run the parts of ``--parts``, and print their figures as one line of JSON."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves the blocks that stop the servers
    bench = Bench(args)
    parts = {CLOSED_LOOP: bench.closed_loop, ADAPTIVE: bench.adaptive}
    print(json.dumps({part: parts[part]() for part in args.parts}))
