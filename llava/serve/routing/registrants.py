"""Decides who may speak for workers: by the shared secret, or by coming from this machine."""

from __future__ import annotations

import ipaddress

from fastapi import Request

from llava.errors import OptionError
from llava.serve.middleware import registration_token
from llava.serve.protocol.errors import RequestFailure
from llava.serve.routing.worker_address import checked_address


def check_registrant(request: Request, token: str | None, name: str) -> str:
    """Return the worker address that a request names, in its normal form.

    Raises RequestFailure (403): with ``token``, for a request that does not show it; without, for a request or a worker
    of another machine; and for an address where no worker can be.
    """
    if token is None and not is_of_this_machine(request):
        raise RequestFailure(
            403,
            "forbidden",
            "without --registration-token the controller takes registrations from its own machine only. Start "
            "controller and worker with the same token",
        )
    if not registration_token.fits(token, request.headers.get("Authorization")):
        raise RequestFailure(403, "forbidden", "the registration token is missing or wrong")
    try:
        return checked_address(name, loopback_only=token is None)
    except OptionError as error:
        raise RequestFailure(403, "forbidden", str(error)) from error


def check_operator(request: Request, token: str | None) -> None:
    """Raise RequestFailure (403) unless a request shows the ``token`` or comes from this machine."""
    shown = token is not None and registration_token.fits(token, request.headers.get("Authorization"))
    if not shown and not is_of_this_machine(request):
        raise RequestFailure(403, "forbidden", "this needs the registration token, or a request from this machine")


def is_of_this_machine(request: Request) -> bool:
    """Return whether a request was sent by this machine: from loopback, or from the address that it was sent to.

    Not one of a page in a browser, which has an ``Origin``: the page may be anyone's. After a reverse proxy on this
    machine the sender is the last one that the proxy names in ``X-Forwarded-For``.
    """
    sender = _address(request.client.host if request.client else "")
    server = request.scope.get("server")
    own = _address(server[0] if server else "")
    of_page = "Origin" in request.headers
    return sender is not None and not of_page and (sender.is_loopback or sender == own)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
