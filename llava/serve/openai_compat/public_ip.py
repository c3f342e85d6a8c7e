"""Decides which IP addresses belong to the public internet, so that a server may fetch a URL that a client gives."""

from __future__ import annotations

import ipaddress

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_public(address: str) -> bool:
    """Return whether everyone on the internet can reach an IP address, and any IPv4 address embedded in it.

    False for this machine, private, link-local (where clouds keep their metadata) and shared networks, multicast, and
    reserved ranges, among them those through which IPv6 leads to IPv4.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return all(_is_global(part) for part in (ip, *_embedded_ipv4(ip)))


def _is_global(ip: IPAddress) -> bool:
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return True  # ::ffff:1.2.3.4 is as public as the 1.2.3.4 embedded in it, which is checked, too
    special = ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_loopback
    site_local = isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local
    return ip.is_global and not (special or site_local or ip.is_private or ip.is_link_local)


def _embedded_ipv4(ip: IPAddress) -> tuple[IPAddress, ...]:
    """Return the IPv4 addresses inside an IPv6 address: mapped, 6to4, Teredo."""
    if not isinstance(ip, ipaddress.IPv6Address):
        return ()
    teredo = ip.teredo or ()
    return tuple(part for part in (ip.ipv4_mapped, ip.sixtofour, *teredo) if part is not None)
