"""Measures accuracy at a deadline: ``python -m ada.bench deadline``.

Questions with known answers come at random times to an OpenAI-style server, whether it has answered the ones before or
not; an answer counts that is right and complete within the deadline, from when its question was due. Without --endpoint
servers of --model-path are started one after the other: no budget, half of it, the deadline as budget, and the same in
a worker that shares its time. Deadlines as budgets need ``python -m ada.calibrate`` before.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ada.bench.deadline.contestants import DEADLINE, OURS, Contestant
from ada.budget import TimeBudget, read_budget
from llava.errors import OptionError
from llava.files.atomic_write import atomic_write

if TYPE_CHECKING:
    from ada.bench.deadline.benchmark import EndpointOf
    from ada.bench.deadline.client import Endpoint
    from ada.eval.questions.question_set import Item

SUITE_DATA = Path("playground/data/shapes")
CALIBRATED = ("--latency-budget", "ttft=3600s")  # a worker that is started with a time calibrates where it must


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this benchmark."""
    parser.add_argument("--endpoint", metavar="URL", help="API to ask, up to /v1, instead of starting servers")
    parser.add_argument("--model", help="model that the endpoint is asked for")
    parser.add_argument("--api-key", default="none", help="key that the endpoint wants")
    parser.add_argument(
        "--contestant",
        action="append",
        type=Contestant.parse,
        metavar="NAME={JSON}",
        help=f"name and fields of its requests, in whose texts {DEADLINE} is the deadline; several are compared; by "
        "default, of an endpoint, requests as they are",
    )
    parser.add_argument("--model-path", help="checkpoint folder of the servers to start; by default the bundled model")
    parser.add_argument("--worker-flags", default="", help="more flags for every worker, in one text")
    parser.add_argument(
        "--suite", default="shapes", help="shapes, or a question file: JSON lines with image, text and answer"
    )
    parser.add_argument(
        "--suite-data", type=Path, default=SUITE_DATA, help="folder of the suite, or of the question file's images"
    )
    parser.add_argument(
        "--deadlines", metavar="MS,...", help="such as 50ms,100ms; by default multiples of an answer's time alone"
    )
    parser.add_argument(
        "--loads",
        type=float,
        nargs="+",
        default=[0.2, 2.0],
        help="questions a second, over what the first contestant serves",
    )
    parser.add_argument("--requests", type=int, default=300, help="questions of each run")
    parser.add_argument("--max-tokens", type=int, default=32, help="maximum tokens of an answer")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the arrivals")
    parser.add_argument("--page", type=Path, metavar="FILE", help="HTML page of curves and figures to write")


def run(args: argparse.Namespace) -> None:
    """Run the benchmark; print its table, and its figures as JSON. Raises a ``LlavaError`` for what is wrong."""
    from ada.bench.deadline.benchmark import Settings, run_all
    from ada.bench.deadline.page import page, table

    contestants, endpoint_of = _contestants(args)
    settings = Settings(_deadlines(args.deadlines), args.loads, args.requests, args.max_tokens, args.seed)
    if args.requests < 1 or min(args.loads) <= 0:
        raise OptionError(f"--requests is {args.requests} and --loads {args.loads}; expected numbers above 0")
    found = run_all(contestants, endpoint_of, _items(args), settings)
    for line in table(found.curves):
        print("  ".join(line))
    figures = {
        "command": shlex.join(["python", "-m", "ada.bench", *sys.argv[1:]]),
        "machine": platform.machine(),
        "suite": args.suite,
        "requests": args.requests,
        "alone_ms": found.alone_ms,
        "capacity": found.capacity,
        "curves": [curve.to_json() for curve in found.curves],
    }
    if args.page is not None:
        atomic_write(args.page, page(found, figures).encode())
    print(json.dumps(figures))


def _deadlines(text: str | None) -> list[float]:
    found = []
    for part in (text or "").split(",") if text else []:
        budget = read_budget(part.strip())
        if not isinstance(budget, TimeBudget) or budget.milliseconds is None:
            raise OptionError(f"--deadlines is {text!r}; expected times such as 50ms,100ms,1s")
        found.append(budget.milliseconds)
    return sorted(found)


def _items(args: argparse.Namespace) -> list[Item]:
    from ada.eval.questions.question_file import read_question_file
    from ada.eval.questions.suite import SUITES, read_suite

    if args.suite in SUITES:
        return list(read_suite(args.suite, args.suite_data)[0].items)
    return list(read_question_file(Path(args.suite), args.suite_data).items)


def _contestants(args: argparse.Namespace) -> tuple[list[Contestant], EndpointOf]:
    from ada.bench.deadline.benchmark import given
    from ada.bench.deadline.client import Endpoint

    if args.endpoint is None:
        flags = [] if args.model_path is None else ["--model-path", args.model_path]
        flags += shlex.split(args.worker_flags)
        return args.contestant or list(OURS), lambda contestant: _started(contestant, flags)
    if args.model is None:
        raise OptionError("--endpoint was given without --model; expected the name of one of its models")
    endpoint = Endpoint(args.endpoint.rstrip("/"), args.model, args.api_key)
    return args.contestant or [Contestant("as it is")], lambda contestant: given(endpoint)


@contextlib.contextmanager
def _started(contestant: Contestant, flags: list[str]) -> Iterator[Endpoint]:
    from ada.bench.deadline.client import Endpoint
    from ada.bench.load.servers import started

    timed = CALIBRATED if contestant.knows_deadline else ()
    with started([*flags, *timed, *contestant.worker_flags], []) as servers:
        yield Endpoint(f"{servers.api}/v1", servers.model)
