"""Runs the load benchmark by its own name: ``python -m ada.bench.load``, as ``python -m ada.bench load``."""

from __future__ import annotations

import argparse

from ada.bench.load import command
from llava.program import run_program


def main(arguments: list[str] | None = None) -> int:
    """Run the program and return its exit code: 2 for a user error."""
    parser = argparse.ArgumentParser(
        prog="python -m ada.bench.load",
        description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    args = parser.parse_args(arguments)
    return run_program(lambda: command.run(args))


if __name__ == "__main__":
    raise SystemExit(main())
