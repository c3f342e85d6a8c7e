"""Where a worker may be: the addresses that a controller agrees to send requests to."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from llava.errors import OptionError

_FORM = "http://HOST:PORT or https://HOST:PORT, with nothing behind the port"


def checked_address(address: str, loopback_only: bool = False) -> str:
    """The address in one form, without a slash at its end.

    Raises OptionError where it is no address of a server, and for networks that no worker is in: link-local (where
    clouds keep their metadata), multicast, unspecified; with ``loopback_only``, for all but this machine.
    """
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise OptionError(f"the worker's address is {address!r} ({error}); expected {_FORM}") from error
    extra = parts.username or parts.password or parts.query or parts.fragment or parts.path not in ("", "/")
    host = parts.hostname
    plain = address.isascii() and address.isprintable() and " " not in address
    if parts.scheme not in ("http", "https") or not host or port == 0 or extra or not plain:
        raise OptionError(f"the worker's address is {address!r}; expected {_FORM}")
    number = _number(host)
    if number is not None and (number.is_link_local or number.is_multicast or number.is_unspecified):
        raise OptionError(f"the worker's address is {address!r}; no worker may be at {number}")
    loopback = host == "localhost" or (number is not None and number.is_loopback)
    if loopback_only and not loopback:
        raise OptionError(
            f"the worker's address is {address!r}; without --registration-token the controller takes workers of this "
            "machine only (localhost, 127.0.0.1). Start controller and worker with the same token"
        )
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + (f":{port}" if port else "")


def _number(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The host as an IP number, in the old forms too that resolvers take (127.1, 0x7f000001); None for a name."""
    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        return _old_form(host)
    mapped = getattr(number, "ipv4_mapped", None)
    return mapped or number


def _old_form(host: str) -> ipaddress.IPv4Address | None:
    parts = host.rstrip(".").split(".")
    try:
        values = [int(part, _base(part)) for part in parts]
    except ValueError:
        return None
    *front, last = values
    if len(parts) > 4 or any(not 0 <= value < 256 for value in front) or not 0 <= last < 256 ** (5 - len(parts)):
        return None
    return ipaddress.IPv4Address(sum(value << 8 * (3 - place) for place, value in enumerate(front)) + last)


def _base(part: str) -> int:
    if part[:2].lower() == "0x":
        return 16
    return 8 if part.startswith("0") and part != "0" else 10
