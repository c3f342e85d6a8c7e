"""Runs a benchmark: ``python -m ada.bench [COMMAND]``.

Every benchmark prints its figures as one JSON object on the last line. Without a command, decode runs.
"""

from __future__ import annotations

import argparse
from types import ModuleType

from ada.bench import adherence, batching, prefill_decode, quantized, reuse, selection, tokens
from ada.bench.deadline import command as deadline
from ada.bench.decode import command as decode
from ada.bench.decode import gpu
from ada.bench.hostile import command as hostile
from ada.bench.load import command as load
from ada.bench.promises import command as promises
from llava.program import run_program


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of all benchmarks; its own flags are those of decode."""
    parser = argparse.ArgumentParser(
        prog="python -m ada.bench",
        description=f"{__doc__}\ndecode: {decode.__doc__}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _configure(parser, decode)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", prog=parser.prog)
    _add_command(commands, "decode", decode)
    _add_command(commands, "gpu", gpu)
    _add_command(commands, "prefill-decode", prefill_decode)
    _add_command(commands, "tokens", tokens)
    _add_command(commands, "adherence", adherence)
    _add_command(commands, "batch", batching)
    _add_command(commands, "quantized", quantized, "quantised")
    _add_command(commands, "selection", selection)
    _add_command(commands, "reuse", reuse)
    _add_command(commands, "load", load)
    _add_command(commands, "hostile", hostile)
    _add_command(commands, "deadline", deadline)
    _add_command(commands, "promises", promises)
    return parser


def _add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, module: ModuleType, *aliases: str
) -> None:
    text = module.__doc__ or ""
    parser = commands.add_parser(
        name,
        aliases=aliases,
        help=text.splitlines()[0].partition(":")[0],
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _configure(parser, module)


def _configure(parser: argparse.ArgumentParser, module: ModuleType) -> None:
    """Add a benchmark's flags; its module has ``add_arguments(parser)`` and ``run(args)``."""
    module.add_arguments(parser)
    parser.set_defaults(run=module.run)


def main(arguments: list[str] | None = None) -> int:
    """Run the program and return its exit code: 2 for a user error."""
    args = make_parser().parse_args(arguments)
    return run_program(lambda: args.run(args))


if __name__ == "__main__":
    raise SystemExit(main())
