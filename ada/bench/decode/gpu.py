"""Times 32 layers of 7B shapes on one GPU, full and under plans: ``python -m ada.bench gpu``.

The engine decodes full and at budgets of 0.75 and 0.5, one row
and eight rows with own plans, on prompts of 640 positions; and prompts whose plans it has not seen. Next to it,
full: transformers' loop with its growing and with its static cache, the latter for one row of one kind, because
transformers compiles it for every shape. On one H100 it takes less than ten minutes; goals are those of that GPU.

    python -m ada.bench gpu                 # one GPU
    python -m ada.bench gpu --toy           # the same on a CPU, with four tiny layers

Prints progress on stderr, tables, goals, and everything as one JSON object on the last line.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import torch

from ada.bench.decode import tables, ways
from ada.bench.decode.bandwidth import memory_bandwidth
from ada.bench.decode.command import report, ways_of
from ada.bench.decode.goals import gpu_goals
from ada.bench.decode.rounds import NEW_PLAN, Run, SubjectRounds, run_rounds
from ada.bench.decode.subject import STACK, Setting, Subject, stack
from ada.bench.device import add_device_flag, device_named
from llava.errors import OptionError

BUDGETS = (1.0, 0.75, 0.5)
TOY_SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "vocab_size": 50,
    "max_position_embeddings": 128,
}


def runs_of(kind: str, positions: int, rows: Sequence[int], static: bool = True) -> list[Run]:
    """Return what is run of a kind: the engine in every setting; of H also transformers, full.

    static: with transformers' static cache, too.
    """
    runs = []
    for count in rows:
        full = Setting(1.0, positions, count)
        runs += [Run(Setting(budget, positions, count), ways.ENGINE) for budget in BUDGETS]
        if kind == "H":
            runs.append(Run(full, ways.TRANSFORMERS))
        if count == 1:
            runs += [Run(Setting(budget, positions, count), NEW_PLAN) for budget in BUDGETS[1:]]
            runs += [Run(full, ways.STATIC)] if kind == "H" and static else []
    return runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this benchmark."""
    parser.add_argument("--layers", type=int, default=32, help="layers of 7B shapes")
    parser.add_argument("--positions", type=int, default=640, help="positions of the prompts")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8], help="prompts at once, each with its own plan")
    parser.add_argument("--steps", type=int, default=32, help="decode steps of a run")
    parser.add_argument("--rounds", type=int, default=15, help="maximum of timed rounds of a model")
    parser.add_argument("--seconds", type=float, default=540, help="time for all; two rounds of a model always run")
    parser.add_argument("--no-static", action="store_true", help="leave out the peer that compiles for half a minute")
    add_device_flag(parser, default="cuda")
    parser.add_argument("--toy", action="store_true", help="four tiny layers, short prompts and two rounds on a CPU")


def run(args: argparse.Namespace) -> None:
    """Time everything, and print it. Raises OptionError for a number below 1, and for a device that is not there."""
    if args.toy:
        toy = {"layers": 4, "positions": 24, "rows": [1, 4], "steps": 4, "rounds": 2, "device": "cpu"}
        args = argparse.Namespace(**{**vars(args), **toy})
    if min(args.layers, args.positions, args.rounds, *args.rows) < 1 or args.steps < 2:
        raise OptionError("--layers, --positions, --rounds and --rows take numbers from 1 up, --steps from 2 up")
    device = device_named(args.device)
    start = time.perf_counter()
    say = tables.progress_since(start)
    say("measuring the memory's bandwidth")
    bandwidth = memory_bandwidth(device)
    say(f"{bandwidth / 1e9:.0f} GB a second; making {args.layers} layers")
    make = stack(args.layers, device, torch.bfloat16, TOY_SIZES if args.toy else None)
    settings = [Setting(budget, args.positions, count) for count in args.rows for budget in BUDGETS]
    rounds = []
    for kind in ("H", "L"):
        subject = Subject(STACK, kind, make(kind), settings, args.steps)
        runs = runs_of(kind, args.positions, args.rows, not args.no_static)
        rounds.append(SubjectRounds(subject, ways_of(subject, peers=()), runs))
    run_rounds(rounds, args.rounds, start + args.seconds, say)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    about = {"device": name, "torch": torch.__version__, "layers": args.layers, "toy": args.toy}
    report(rounds, bandwidth, about, gpu_goals)
