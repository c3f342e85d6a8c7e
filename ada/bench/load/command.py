"""Puts a served model under load: ``python -m ada.bench load``.

It starts controller and worker itself, and has two parts.

together: requests of mixed words, images and budgets, several at a time; whether each answer equals the one given
alone; as one running batch, one by one, and upstream's way, in which every request runs at once in its own thread.
adaptive: requests come faster than a full budget can serve; a worker that lowers budgets against one that only refuses.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ada.bench.load.workload import ADAPTIVE, CLOSED_LOOP

IMAGE_FILE = Path(__file__).parents[3] / "playground" / "shapes" / "demo.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this benchmark."""
    parser.add_argument(
        "--parts", nargs="+", choices=[CLOSED_LOOP, ADAPTIVE], default=[CLOSED_LOOP, ADAPTIVE], help="parts to run"
    )
    parser.add_argument("--model-path", help="checkpoint folder or hub name; by default the bundled model")
    parser.add_argument("--worker-flags", default="", help="more flags for every worker, in one text")
    parser.add_argument(
        "--image-file", default=str(IMAGE_FILE), help="image to ask about; it is also sent mirrored and rotated"
    )
    parser.add_argument("--requests", type=int, default=200, help="requests of each part")
    parser.add_argument("--at-once", type=int, default=16, help="clients at the same time, in the part together")
    parser.add_argument("--max-batch", type=int, default=8, help="rows of the batching worker, in the part together")
    parser.add_argument("--turns", type=int, default=1, help="questions of a chat, of which the last one is answered")
    parser.add_argument("--max-new-tokens", type=int, default=32, help="maximum tokens of an answer")
    parser.add_argument(
        "--budgets",
        type=float,
        nargs="+",
        default=[1.0, 0.85, 0.75, 0.6, 0.5],
        help="budgets to request, in the part together",
    )
    parser.add_argument(
        "--overload", type=float, default=1.5, help="arrivals over what a full budget can serve, in the part adaptive"
    )
    parser.add_argument(
        "--least-budget", type=float, default=0.5, help="--adaptive-budget of the adaptive worker: its minimum budget"
    )
    parser.add_argument("--max-queue-length", type=int, default=8, help="requests that may wait, in the part adaptive")
    parser.add_argument("--seed", type=int, default=0, help="random seed of requests and arrivals")
    parser.add_argument("--plot", type=Path, help="PNG file for budget, queue and latency over time, part adaptive")


def run(args: argparse.Namespace) -> None:
    """Run the parts, and print the figures. Raises OptionError for bad flags and for a worker that does not start."""
    from ada.bench.load.benchmark import run_parts  # its HTTP client comes with the extra "serve"

    run_parts(args)
