"""Binds a server's port before anything slow is done, so that a taken port ends the program at once."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from llava.errors import OptionError


class PortTaken(OptionError):
    """Another program listens at the port."""


def url_of(host: str, port: int) -> str:
    """Return the URL of a host and a port; an IPv6 address gets its brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def bind(host: str, port: int) -> list[socket.socket]:
    """Return a bound socket, not listening yet, for every address of ``host``, all at one port; 0 is a free one.

    Raises OptionError where the host has no address, the port is taken, or it may not be used.
    """
    host = host.removeprefix("[").removesuffix("]")
    if not 0 <= port < 65536:
        raise OptionError(f"--port is {port}; expected 0 (a free one) to 65535")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, OverflowError, UnicodeError) as error:
        raise OptionError(f"--host {host!r} --port {port} is no address to listen at: {error}") from error
    addresses = sorted({(family, address) for family, *_, address in found})
    with ExitStack() as stack:
        sockets: list[socket.socket] = []
        for family, address in addresses:
            try:
                sockets.append(_bound(family, (address[0], port or _port_of(sockets), *address[2:])))
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL and len(addresses) > 1:
                    continue  # a host may have an IPv6 name on a machine without IPv6
                raise refusal(host, port, error) from error
            stack.callback(sockets[-1].close)
        if not sockets:
            raise OptionError(f"--host {host!r} has no address of this machine")
        stack.pop_all()
    return sockets


def _bound(family: int, address: tuple[Any, ...]) -> socket.socket:
    # asyncio turns Nagle's algorithm off where the protocol is named; with it, what follows a reply's headers would
    # wait 40 ms for the client's acknowledgement.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    return bound


def _port_of(sockets: list[socket.socket]) -> int:
    return int(sockets[0].getsockname()[1]) if sockets else 0


def refusal(host: str, port: int, error: OSError) -> OptionError:
    """Return the user error for a port that cannot be listened at."""
    if error.errno == errno.EADDRINUSE:
        return PortTaken(
            f"port {port} of {host} is taken by another program; stop that, or give another --port (0: a free one)"
        )
    return OptionError(f"port {port} of {host} cannot be listened at: {error.strerror or error}; give another --port")


@contextmanager
def refusals(host: str, port: int) -> Iterator[None]:
    """Turn the errors of listening at a port, within the block, into user errors."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL):
            raise
        raise refusal(host, port, error) from error
