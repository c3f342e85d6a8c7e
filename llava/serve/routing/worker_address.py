"""Checks the address that a worker registers under: its form, and that it is in a network where workers may be."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from llava.errors import OptionError

_FORM = "http://HOST:PORT or https://HOST:PORT, with nothing after the port"


def checked_address(address: str, loopback_only: bool = False) -> str:
    """Return the address in its normal form, without a slash at its end.

    Raises OptionError where it is not the address of a server, and for networks that no worker is in: link-local (where
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
    ip = _ip_of(host)
    if ip is not None and (ip.is_link_local or ip.is_multicast or ip.is_unspecified):
        raise OptionError(f"the worker's address is {address!r}; no worker may be at {ip}")
    loopback = host == "localhost" or (ip is not None and ip.is_loopback)
    if loopback_only and not loopback:
        raise OptionError(
            f"the worker's address is {address!r}; without --registration-token the controller takes workers of this "
            "machine only (localhost, 127.0.0.1). Start controller and worker with the same token"
        )
    bracketed = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{bracketed}" + (f":{port}" if port else "")


def _ip_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Parse the host as an IP address, in the short and hexadecimal forms of resolvers too; None for a name."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return _legacy_ipv4(host)
    mapped = getattr(ip, "ipv4_mapped", None)
    return mapped or ip


def _legacy_ipv4(host: str) -> ipaddress.IPv4Address | None:
    """Parse what ``inet_aton`` accepts, such as 127.1, 0x7f000001 or 017700000001; None for anything else."""
    parts = host.rstrip(".").split(".")
    try:
        values = [int(part, _base(part)) for part in parts]
    except ValueError:
        return None
    *leading, last = values
    if len(parts) > 4 or any(not 0 <= value < 256 for value in leading) or not 0 <= last < 256 ** (5 - len(parts)):
        return None
    return ipaddress.IPv4Address(sum(value << 8 * (3 - index) for index, value in enumerate(leading)) + last)


def _base(part: str) -> int:
    if part[:2].lower() == "0x":
        return 16
    return 8 if part.startswith("0") and part != "0" else 10
