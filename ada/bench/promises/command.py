"""Counts the promises of time that a server keeps for many at once: ``python -m ada.bench promises``.

Requests of mixed words, images and lengths come to an OpenAI-style server, several at a time. Four of five have a
budget in time, for the first token, for each later one, for the whole answer, or two of these: between some multiples
of what the first server takes for a request that comes alone. It counts what is kept by the client's clock, and what
is refused before it begins. Without --endpoint a worker that shares its time is started, with controller and API, on
a device that ``python -m ada.calibrate`` knows; several endpoints take turns.

Prints a table, and the same as one JSON object on the last line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.errors import OptionError

if TYPE_CHECKING:
    from ada.bench.promises.client import Outcome

IMAGE_FILE = Path(__file__).parents[3] / "playground" / "shapes" / "demo.png"
WORKER_FLAGS = "--adaptive-budget 0.3"
ALONE = 20  # requests that come alone, of which the first half warms up
PARTS = 4  # in which endpoints take turns


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this benchmark."""
    parser.add_argument("--endpoint", nargs="+", metavar="URL", help="APIs to ask, up to /v1, instead of a new server")
    parser.add_argument("--model", help="model that the endpoints are asked for")
    parser.add_argument("--worker-flags", default=WORKER_FLAGS, help="flags of the worker, in one text")
    parser.add_argument("--requests", type=int, default=200, help="requests to each endpoint")
    parser.add_argument("--at-once", type=int, default=8, help="clients at the same time")
    parser.add_argument(
        "--slack", type=float, nargs=2, default=[3, 30], metavar="TIMES", help="promises, over a request's times alone"
    )
    parser.add_argument("--max-tokens", type=int, default=32, help="maximum tokens of an answer")
    parser.add_argument("--image-file", default=str(IMAGE_FILE), help="image to ask about, mirrored and rotated too")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the requests")


def run(args: argparse.Namespace) -> None:
    """Ask all endpoints, and print the figures. Raises OptionError for flags that do not go together."""
    from ada.bench.load.servers import started  # its HTTP client comes with the extra "serve"

    low, high = args.slack
    if min(args.requests, args.at_once, args.max_tokens - 1) < 1 or not 0 < low <= high:
        raise OptionError(
            "expected --requests and --at-once from 1 up, --max-tokens from 2 up, and --slack with two numbers in "
            "order, above 0"
        )
    if args.endpoint is None:
        with started(shlex.split(args.worker_flags), []) as servers:
            _measure([f"{servers.api}/v1"], servers.model, args)
        return
    if args.model is None:
        raise OptionError("--endpoint was given without --model; expected the name of one of its models")
    _measure([url.rstrip("/") for url in args.endpoint], args.model, args)


def _measure(urls: Sequence[str], model: str, args: argparse.Namespace) -> None:
    low, high = args.slack
    from ada.bench.load.workload import image_variants, mixed
    from ada.bench.promises.client import ask_all
    from ada.bench.promises.requests import PromisedRequest, promised_requests
    from llava.files.images import load_image

    images = image_variants(load_image(args.image_file))

    def ask(url: str, requests: Sequence[PromisedRequest], at_once: int) -> list[Outcome]:
        bodies = [request.body(model, args.max_tokens) for request in requests]
        return asyncio.run(ask_all(url, requests, bodies, at_once))

    long = 3 * args.max_tokens // 4
    unpromised = [PromisedRequest(one, {}, long) for one in mixed(ALONE, images, [None], args.seed + 1)]
    alone = _medians(ask(urls[0], unpromised, 1)[ALONE // 2 :])
    for url in urls:
        ask(url, unpromised, args.at_once)  # warms up
    asked = mixed(args.requests, images, [None], args.seed)
    requests = [*promised_requests(asked, alone, (low, high), args.seed, long)]
    outcomes: dict[str, list[Outcome]] = {url: [] for url in urls}
    for part in range(PARTS):
        for url in urls if part % 2 == 0 else reversed(urls):
            outcomes[url] += ask(url, requests[part::PARTS], args.at_once)
            print(f"part {part + 1} of {PARTS}: {url}", file=sys.stderr)
    found = {url: figures(of) for url, of in outcomes.items()}
    _show(found, alone, args)
    settings = {name: getattr(args, name) for name in ("requests", "at_once", "slack", "max_tokens", "worker_flags")}
    print(json.dumps({**settings, "model": model, "alone_ms": alone, "endpoints": found}))


def _medians(outcomes: Sequence[Outcome]) -> dict[str, float]:
    answered = [one.measured_ms for one in outcomes if one.measured_ms is not None]
    if not answered:
        raise OptionError(f"the server answered none of {len(outcomes)} requests; the first: {outcomes[0].failure}")
    return {name: round(statistics.median(one[name] for one in answered), 2) for name in answered[0]}


def figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return what was kept of the promises that were not refused, how that went, and how long answers took."""
    promised = [one for one in outcomes if one.request.promised]
    answered = [one for one in promised if one.measured_ms is not None]
    times = [one.measured_ms for one in outcomes if one.measured_ms is not None]
    shares = [one.share for one in answered if one.share is not None]
    return {
        "requests": len(outcomes),
        "promised": len(promised),
        "accepted": sum(not one.refused for one in promised),
        "answered": len(answered),
        "cut": sum(one.cut for one in answered),
        "kept": sum(one.kept for one in answered),
        "kept_by_server": sum(one.said_kept for one in answered),
        "kept_by_clauses": _by_clauses(answered),
        "refused": dict(Counter(f"{one.status} {one.failure}" for one in outcomes if one.refused)),
        "lost": sum(one.measured_ms is None and not one.refused for one in outcomes),
        "mean_share": round(statistics.fmean(shares), 3) if shares else None,
        **{f"{name}_ms": _quantiles([one[name] for one in times]) for name in ("ttft", "total")},
    }


def _by_clauses(answered: Sequence[Outcome]) -> dict[str, list[int]]:
    """Return, by what was promised, how many were kept of how many."""
    found: dict[str, list[int]] = {}
    for one in answered:
        kept = found.setdefault(",".join(one.request.promised), [0, 0])
        kept[0] += one.kept
        kept[1] += 1
    return found


def _quantiles(values: Sequence[float]) -> dict[str, float] | None:
    if len(values) < 2:
        return None
    cut = statistics.quantiles(values, n=20, method="inclusive")
    return {"p50": round(cut[9], 1), "p95": round(cut[18], 1)}


def _show(found: dict[str, dict[str, Any]], alone: dict[str, float], args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    times = ", ".join(f"{name} {milliseconds:.1f} ms" for name, milliseconds in alone.items())
    table = Table(title=f"{args.at_once} at a time; alone: {times}")
    columns = (
        "endpoint",
        "promised",
        "refused",
        "accepted",
        "lost",
        "kept",
        "by the server's clock",
        "cut",
        "mean share",
    )
    for column in columns:
        table.add_column(column, justify="left" if column == "endpoint" else "right")
    for url, of in found.items():
        kept, said = (f"{of[name]} ({of[name] / max(1, of['accepted']):.0%})" for name in ("kept", "kept_by_server"))
        counts = (of["promised"], sum(of["refused"].values()), of["accepted"], of["lost"], kept, said, of["cut"])
        table.add_row(url, *map(str, counts), "" if of["mean_share"] is None else f"{of['mean_share']:.2f}")
    Console(width=120).print(table)
