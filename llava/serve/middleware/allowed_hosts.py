"""ASGI middleware that answers requests for this server's names only, against DNS rebinding from a browser."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from llava.errors import OptionError
from llava.serve.protocol.errors import ErrorFormat, RequestFailure, refuse

LOCAL = ("localhost", "127.0.0.1", "::1")
EVERY_NETWORK = ("0.0.0.0", "::", "")
ANY_HOST, ANY_ADDRESS, NAME_WITHOUT_DOT = "*", "any IP address", "any name without a dot"


def allowed_names(host: str, extra: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the names by which a server that listens at ``host`` may be addressed; ``extra``: further ones.

    One that listens at every network has all its IP addresses and names without a dot, such as those of containers,
    which no page of the internet can take as its name; and the machine's name. Raises OptionError for an extra name
    that no host can have.
    """
    names = [*LOCAL, _plain(host)]
    if _plain(host) in EVERY_NETWORK:
        names += [ANY_ADDRESS, NAME_WITHOUT_DOT, socket.gethostname().lower()]
    for name in extra:
        plain = _plain(name)
        if not plain or not plain.isprintable() or set(plain) & set(" /@") or "*" in plain.removeprefix("*"):
            raise OptionError(f"--allowed-hosts has {name!r}; expected names such as example.org, *.example.org or *")
        names.append(plain)
    return tuple(dict.fromkeys(names))


def host_of(header: str) -> str | None:
    """Return the host of a ``Host`` header, lower case, without port, brackets and final dot; None without one."""
    header = header.strip()
    if header.startswith("["):
        host, bracket, port = header[1:].partition("]")
        valid = bool(bracket) and (not port or (port[0] == ":" and port[1:].isdecimal())) and _is_address(host)
    else:
        host, colon, port = header.partition(":")
        valid = not colon or not port or port.isdecimal()
    host = _plain(host)
    return host if valid and host and not set(host) & set(" /@,") else None


def _plain(name: str) -> str:
    plain = name.strip().lower().removeprefix("[").removesuffix("]").removesuffix(".")
    return str(ipaddress.ip_address(plain)) if _is_address(plain) else plain


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class AllowedHosts:
    """ASGI middleware that refuses requests whose ``Host`` is none of ``names``; without ``names`` it passes all.

    A page of another name that was made to resolve to this machine would otherwise reach it from a browser.
    """

    def __init__(
        self, app: ASGIApp, names: tuple[str, ...] | None, error_format: ErrorFormat = RequestFailure.response
    ) -> None:
        self.app = app
        self.names = names
        self.error_format = error_format

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request: refuse it with 421, or pass it on."""
        guarded = scope["type"] in ("http", "websocket") and self.names is not None and ANY_HOST not in self.names
        if guarded and (failure := self._failure(scope)) is not None:
            await refuse(failure, self.error_format, scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _failure(self, scope: Scope) -> RequestFailure | None:
        if not scope["path"].startswith("/"):  # an absolute URL, whose host might be another than the header's
            return RequestFailure(400, "bad_request", "the request's target is not a path; send a path, and a Host")
        headers = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if len(headers) != 1 or (host := host_of(headers[0])) is None:
            return RequestFailure(400, "bad_request", "the header Host is missing or invalid; send this server's name")
        if not self._allows(host):
            message = f"this server does not answer as {host[:100]!r}; its operator can allow it with --allowed-hosts"
            return RequestFailure(421, "wrong_host", message)
        return None

    def _allows(self, host: str) -> bool:
        names = self.names or ()
        if host in names or (ANY_ADDRESS in names and _is_address(host)):
            return True
        if NAME_WITHOUT_DOT in names and "." not in host and not host.isdecimal():
            return True
        return any(name.startswith("*.") and host.endswith(name[1:]) for name in names)
