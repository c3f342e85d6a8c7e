"""Puts a served model under load: ``python -m ada.bench.load``. Starts controller and worker by itself.

together: requests of mixed words, pictures and budgets, so many at a time; whether each answer is the one given alone;
as one running batch, one by one, and upstream's way, in which every request runs at once in a thread of its own.
adaptive: requests come faster than full budget can serve; a worker that lowers budgets against one that only refuses.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

from ada.bench.load.client import Load, Result, watched
from ada.bench.load.figures import differing, draw, summary
from ada.bench.load.servers import Servers, started
from ada.bench.load.workload import LoadRequest, arrivals, mixed, pictures_of
from llava.conversation import Conversation, conv_templates, template_of_name
from llava.errors import OptionError
from llava.mm_utils import load_image
from llava.program import run_program

log = logging.getLogger(__name__)

TOGETHER, ADAPTIVE = "together", "adaptive"
BATCH = "batch"
MORE_THAN_ALL = 10_000  # places in the queue: nobody is refused
PICTURE = Path(__file__).parents[3] / "playground" / "shapes" / "demo.png"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(
        prog="python -m ada.bench.load",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--parts", nargs="+", choices=[TOGETHER, ADAPTIVE], default=[TOGETHER, ADAPTIVE])
    parser.add_argument("--model-path", help="checkpoint; by default the bundled model")
    parser.add_argument("--worker-flags", default="", help="more flags for every worker, in one text")
    parser.add_argument(
        "--image-file", default=str(PICTURE), help="a picture; it is also asked about mirrored and turned"
    )
    parser.add_argument("--requests", type=int, default=200, help="requests of each part")
    parser.add_argument("--at-once", type=int, default=16, help="clients at the same time, together")
    parser.add_argument("--max-batch", type=int, default=8, help="rows of the worker that batches, together")
    parser.add_argument("--turns", type=int, default=1, help="questions of a chat, of which the last one is answered")
    parser.add_argument("--max-new-tokens", type=int, default=32, help="longest answer")
    parser.add_argument(
        "--budgets", type=float, nargs="+", default=[1.0, 0.85, 0.75, 0.6, 0.5], help="asked for, together"
    )
    parser.add_argument("--overload", type=float, default=1.5, help="arrivals, in what full budget can serve, adaptive")
    parser.add_argument("--least-budget", type=float, default=0.5, help="--adaptive-budget of the adaptive worker")
    parser.add_argument("--max-queue-length", type=int, default=8, help="places to wait, adaptive")
    parser.add_argument("--seed", type=int, default=0, help="of requests and arrivals")
    parser.add_argument("--plot", type=Path, help="where to draw budget, queue and latency over time (PNG), adaptive")
    return parser.parse_args(arguments)


class Bench:
    """The flags, and the requests drawn by them."""

    def __init__(self, args: argparse.Namespace) -> None:
        if min(args.requests, args.at_once, args.max_new_tokens, args.turns) < 1 or not args.overload > 0:
            raise OptionError("--requests, --at-once, --turns, --max-new-tokens and --overload must be above 0")
        self.args = args
        self.pictures = pictures_of(load_image(args.image_file))
        self.common = [*(["--model-path", args.model_path] if args.model_path else []), *shlex.split(args.worker_flags)]

    def bodies(self, requests: list[LoadRequest], servers: Servers) -> list[dict[str, Any]]:
        """The requests as this worker's model wants them."""
        template = _template(servers)
        return [request.body(servers.model, template, self.args.max_new_tokens) for request in requests]

    def together(self) -> dict[str, Any]:
        """Part one: the same requests in three ways."""
        args = self.args
        requests = mixed(args.requests, self.pictures, args.budgets, args.seed, args.turns)
        queue = ["--max-queue-length", str(MORE_THAN_ALL), "--queue-timeout", "600"]
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
        """Part two: the same arrivals at a worker of fixed budgets and at one that adapts."""
        args = self.args
        requests = mixed(args.requests, self.pictures, [None], args.seed, args.turns)
        queue = ["--max-queue-length", str(args.max_queue_length)]
        ways = {"fixed": queue, "adaptive": [*queue, "--adaptive-budget", str(args.least_budget)]}
        runs, report = {}, {}
        times: list[float] = []
        unloaded_s = 0.0
        for way, flags in ways.items():
            with started([*self.common, *flags]) as servers:
                bodies, load = self.bodies(requests, servers), Load(servers.controller)
                if not times:
                    unloaded = _all_answered(asyncio.run(load.some_at_a_time(bodies, 1)))
                    full = summary(unloaded)
                    unloaded_s = full["first_token_s"]["p95"]
                    times = arrivals(len(bodies), args.overload * full["answers_per_second"], args.seed)
                    report["unloaded"] = full
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
        raise OptionError(f"request {bad.index} was not answered, though nobody else asked: {bad.failure}")
    return results


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


def main(arguments: list[str] | None = None) -> int:
    """The program; the exit code: 2 for what the user can mend. The report is one line of JSON, the last."""
    args = parse_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of the blocks that stop the servers

    def work() -> None:
        bench = Bench(args)
        parts = {TOGETHER: bench.together, ADAPTIVE: bench.adaptive}
        print(json.dumps({part: parts[part]() for part in args.parts}))

    return run_program(work)


if __name__ == "__main__":
    raise SystemExit(main())
