"""Checks that the ports of several servers are free before any of them is started: for ``scripts/serve.sh``."""

from __future__ import annotations

import argparse

from llava.errors import OptionError
from llava.program import run_program
from llava.serve.hosting.sockets import bind


def check(host: str, ports: list[str]) -> None:
    """Raise OptionError, which names all ports that cannot be bound; each is given as ``NAME=PORT``."""
    taken = []
    for given in ports:
        name, _, port = given.partition("=")
        if not port.isdecimal():
            raise OptionError(f"{name} is {port!r}; expected a number, or 0 for a free port")
        try:
            for bound in bind(host, int(port)):
                bound.close()
        except OptionError:
            taken.append(f"{name} {port}")
    if taken:
        raise OptionError(
            f"ports of {host} that are taken: {', '.join(taken)}. Is another scripts/serve.sh running? Stop it, or "
            "set these variables to other ports (0: a free one)"
        )


def main(arguments: list[str] | None = None) -> int:
    """Run the check; return the exit code, 2 where a port is taken."""
    parser = argparse.ArgumentParser(prog="python -m llava.serve.hosting.free_ports", description=__doc__)
    parser.add_argument("--host", required=True, help="address that the servers are to listen at")
    parser.add_argument("ports", nargs="+", metavar="NAME=PORT", help="variable that sets a port, and the port")
    args = parser.parse_args(arguments)
    return run_program(lambda: check(args.host, args.ports))


if __name__ == "__main__":
    raise SystemExit(main())
