"""Which addresses belong to the public internet, so that a server may fetch what a stranger names."""

from __future__ import annotations

import ipaddress

Number = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_public(address: str) -> bool:
    """Whether an IP number is one that anybody on the internet can reach, in itself and in what is wrapped in it.

    Not so: this machine, private, link-local (where clouds keep their metadata) and shared networks, multicast,
    reserved ranges, among them those through which IPv6 leads to IPv4.
    """
    try:
        number = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return all(_global(part) for part in (number, *_wrapped(number)))


def _global(number: Number) -> bool:
    mapped = isinstance(number, ipaddress.IPv6Address) and number.ipv4_mapped is not None
    if mapped:  # ::ffff:1.2.3.4 is as public as the 1.2.3.4 in it, which is judged beside it
        return True
    special = number.is_multicast or number.is_reserved or number.is_unspecified or number.is_loopback
    site_local = isinstance(number, ipaddress.IPv6Address) and number.is_site_local
    return number.is_global and not (special or site_local or number.is_private or number.is_link_local)


def _wrapped(number: Number) -> tuple[Number, ...]:
    """IPv4 numbers inside an IPv6 number."""
    if not isinstance(number, ipaddress.IPv6Address):
        return ()
    teredo = number.teredo or ()
    return tuple(part for part in (number.ipv4_mapped, number.sixtofour, *teredo) if part is not None)
