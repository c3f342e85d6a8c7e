"""Times decode and prefill by the engine, transformers and llama.cpp: ``python -m ada.bench decode``.

The bundled models H and L (``--models smol``: those of SmolLM2-135M), and a stack of layers with 7B shapes and random
weights, answer random prompts in each way, full and at smaller budgets: by the engine, by transformers' loop with its
growing and with its static cache and, where ``--peer llama.cpp`` asks for it, by llama.cpp on the same weights in Q8_0
(full, one row). "engine, new prompts" reads prompts whose plans it has not seen; its milliseconds say how much later
the second token is than that of seen ones. A round runs everything once, in random order, with the same prompts next
to each other; figures are medians over rounds, ratios those of a round. The first round warms up. The next round is of
the model that took the shortest time so far, and none begins that would end more than ``--seconds`` after the start.

The share of the memory's bandwidth is that of the bytes that a step must read (weights that some row's plan keeps, the
output layer, keys and values) in the time that it takes; a model that fits into the processor's caches may exceed 1.

Prints progress on stderr, tables, goals, and everything as one JSON object on the last line.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from ada.bench.decode import tables, ways
from ada.bench.decode.bandwidth import memory_bandwidth
from ada.bench.decode.goals import decode_goals
from ada.bench.decode.llama_cpp import LLAMA_CPP, llama_cpp, require_llama_cpp
from ada.bench.decode.rounds import NEW_PLAN, Run, SubjectRounds, run_rounds
from ada.bench.decode.subject import BUNDLED, SMOL, STACK, Setting, Subject, bundled, stack
from ada.bench.decode.summary import lines
from ada.bench.device import DTYPES, add_device_flag, device_named
from llava.errors import OptionError


def settings_of(prompts: Sequence[int], rows: Sequence[int], budgets: Sequence[float]) -> list[Setting]:
    """Return what is run: one row of every prompt length, several of the first one, each full and at the budgets."""
    shapes = [(positions, rows[0]) for positions in prompts] + [(prompts[0], count) for count in rows[1:]]
    return [Setting(budget, *shape) for shape in shapes for budget in dict.fromkeys((1.0, *budgets))]


def runs_of(settings: Sequence[Setting], device: torch.device, peers: Sequence[str]) -> list[Run]:
    """Return every setting in every way.

    On a GPU the static cache is left out at plans, each of which transformers would compile anew; llama.cpp knows
    neither plans nor, here, several rows.
    """
    runs = []
    for setting in settings:
        full, alone = setting.budget == 1, setting.rows == 1
        runs += [Run(setting, ways.TRANSFORMERS), Run(setting, ways.ENGINE)]
        if full or device.type != "cuda":
            runs.append(Run(setting, ways.STATIC))
        if alone and not full:
            runs.append(Run(setting, NEW_PLAN))
        if alone and full:
            runs += [Run(setting, peer) for peer in peers]
    return runs


def ways_of(subject: Subject, peers: Sequence[str]) -> dict[str, ways.Way]:
    """Return the ways by name."""
    found = {
        ways.TRANSFORMERS: ways.transformers(subject.model, subject.steps),
        ways.STATIC: ways.transformers_static(subject.model, subject.steps),
        ways.ENGINE: ways.engine(subject.model, subject.steps),
    }
    if LLAMA_CPP in peers:
        longest = max(setting.positions for setting in subject.settings) + subject.steps + 1
        found[LLAMA_CPP] = llama_cpp(subject.model, subject.steps, longest)
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this benchmark."""
    parser.add_argument(
        "--models", nargs="+", choices=[BUNDLED, SMOL, "stack"], default=[BUNDLED, "stack"], help="what to time"
    )
    parser.add_argument("--kinds", nargs="+", choices=["H", "L"], default=["H", "L"], help="kinds of the models")
    parser.add_argument("--layers", type=int, default=4, help="layers of the stack with 7B shapes")
    parser.add_argument("--budgets", type=float, nargs="*", default=[0.75, 0.5], help="budgets in addition to 1")
    parser.add_argument("--prompts", type=int, nargs="+", default=[60, 640], help="positions of the bundled's prompts")
    parser.add_argument("--stack-prompts", type=int, nargs="+", default=[60], help="positions of the stack's prompts")
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[1, 4], help="prompts at once; several have the first length"
    )
    parser.add_argument("--stack-rows", type=int, nargs="+", default=[1], help="the same for the stack")
    parser.add_argument("--steps", type=int, default=24, help="decode steps of a run of the bundled models")
    parser.add_argument("--stack-steps", type=int, default=6, help="decode steps of a run of the stack")
    parser.add_argument("--rounds", type=int, default=15, help="maximum of timed rounds of a model")
    parser.add_argument("--seconds", type=float, default=270, help="time for all; two rounds of a model always run")
    parser.add_argument(
        "--peer", dest="peers", action="append", choices=[LLAMA_CPP], default=[], help="a further way to time"
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, help="of all weights; default: what fits the device, and bfloat16 for the stack"
    )
    parser.add_argument("--threads", type=int, help="threads of a CPU; by default torch's own choice")
    add_device_flag(parser)


def run(args: argparse.Namespace) -> None:
    """Time everything, and print it. Raises OptionError for a number below 1, and for what is not available."""
    _check(args)
    device = device_named(args.device)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    start = time.perf_counter()
    say = tables.progress_since(start)
    say("measuring the memory's bandwidth")
    bandwidth = memory_bandwidth(device)
    say(f"{bandwidth / 1e9:.1f} GB a second")
    subjects = []
    for subject in _subjects(args, device):
        say(f"{subject.title} is made")
        subjects.append(_prepared(subject, device, args.peers))
    run_rounds(subjects, args.rounds, start + args.seconds, say)
    report(subjects, bandwidth, _about(args, device), decode_goals)


def report(
    subjects: Sequence[SubjectRounds],
    bandwidth: float,
    about: Mapping[str, Any],
    goals_of: Callable[[list[dict[str, Any]]], Sequence[Any]],
) -> None:
    """Print tables, goals and JSON. bandwidth: bytes per second; about: what the figures are of."""
    found = [line for subject in subjects for line in lines(subject, bandwidth)]
    goals = goals_of(found)
    tables.show_lines(found)
    tables.show_goals(goals)
    goals_json = [goal.to_json() for goal in goals]
    print(json.dumps({**about, "bandwidth_gb_s": round(bandwidth / 1e9, 2), "lines": found, "goals": goals_json}))


def _subjects(args: argparse.Namespace, device: torch.device) -> Iterator[Subject]:
    """Make one model after the other."""
    dtype = None if args.dtype is None else DTYPES[args.dtype]
    for name in (BUNDLED, SMOL):
        if name in args.models:
            settings, make = settings_of(args.prompts, args.rows, args.budgets), bundled(name, device, dtype)
            for kind in args.kinds:
                yield Subject(name, kind, make(kind), settings, args.steps)
    if "stack" in args.models:
        settings, make = (
            settings_of(args.stack_prompts, args.stack_rows, args.budgets),
            stack(args.layers, device, dtype),
        )
        for kind in args.kinds:
            yield Subject(STACK, kind, make(kind), settings, args.stack_steps)


def _prepared(subject: Subject, device: torch.device, peers: Sequence[str]) -> SubjectRounds:
    return SubjectRounds(subject, ways_of(subject, peers), runs_of(subject.settings, device, peers))


def _about(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    about = {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__, "layers": args.layers}
    return {**about, "dtype": args.dtype, "seconds": args.seconds}


def _check(args: argparse.Namespace) -> None:
    numbers = [
        args.layers,
        args.rounds,
        args.threads or 1,
        *args.prompts,
        *args.stack_prompts,
        *args.rows,
        *args.stack_rows,
    ]
    if min(numbers) < 1 or min(args.steps, args.stack_steps) < 2:
        raise OptionError(
            "--layers, --rounds, --threads, --prompts, --rows, --stack-prompts, --stack-rows take numbers from 1 up, "
            "--steps and --stack-steps from 2 up"
        )
    if not all(0 < budget <= 1 for budget in args.budgets):
        raise OptionError(f"--budgets are {args.budgets}; expected shares above 0, up to 1")
    if args.peers:
        if args.device != "cpu":
            raise OptionError(f"--peer {args.peers[0]} runs on a CPU; --device is {args.device!r}")
        require_llama_cpp()
