"""Checks that the ports of several servers are free before any of them is started: for ``scripts/serve.sh``."""

from __future__ import annotations

import argparse

from llava.errors import OptionError
from llava.program import run_program
from llava.serve.hosting.sockets import PortTaken, bind

MAX_DIGITS = 9  # of a port's number


def check(host: str, ports: list[str]) -> None:
    """Raise OptionError, which names all ports that are taken; each is given as ``NAME=PORT``."""
    taken: list[str] = []
    names: dict[int, str] = {}
    for given in ports:
        name, _, port = given.partition("=")
        if not port.isdecimal() or len(port) > MAX_DIGITS:
            raise OptionError(f"{name} is {port!r}; expected 1 to 65535, or 0 for a free port")
        other = names.setdefault(int(port), name) if int(port) else name
        if other != name:
            raise OptionError(f"{other} and {name} are both {port}; give each server a port of its own")
        try:
            for bound in bind(host, int(port)):
                bound.close()
        except PortTaken:
            taken.append(f"{name} {port}")
        except OptionError as error:
            raise OptionError(f"{name} is {port}: {error}") from error
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
