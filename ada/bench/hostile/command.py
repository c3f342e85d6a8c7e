"""Puts the API among hostile clients: ``python -m ada.bench hostile``.

It starts controller, worker and OpenAI-style API itself. First small requests alone, at random times, whether the ones
before are answered or not; then the same at the same times, next to large and thin images, heads and bodies that
trickle, bodies that are no chat, and clients that leave. It reports what was lost, whether the servers' counters equal
what was sent, the p95 of the small requests that were answered in both runs, from when each was due, how many were not,
and the memory, threads and files of the processes before, after 100 requests, and at the end. Exit code 1 where a
request was lost or a counter differs.
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this benchmark."""
    parser.add_argument("--requests", type=int, default=200, help="requests of the mixed run, half of them small")
    parser.add_argument(
        "--small-load", type=float, default=0.3, help="small requests a second, over those answered one at a time"
    )
    parser.add_argument("--hostile-clients", type=int, default=4, help="clients that send the other requests")
    parser.add_argument("--cancelled", type=float, default=0.1, help="share of all requests whose client leaves")
    parser.add_argument("--model-path", help="checkpoint folder or hub name; by default the bundled model")
    parser.add_argument("--worker-flags", default="", help="more flags for the worker, in one text")
    parser.add_argument("--max-new-tokens", type=int, default=16, help="maximum tokens of an answer")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the requests")


def run(args: argparse.Namespace) -> int:
    """Run the benchmark, and print the figures; return the exit code. Raises OptionError for bad flags."""
    from ada.bench.hostile.benchmark import run_hostile  # its HTTP client comes with the extra "serve"

    return run_hostile(args)
