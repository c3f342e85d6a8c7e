"""Declares the flags that every server has: connections, heads of requests, allowed hosts, shutting down."""

from __future__ import annotations

from dataclasses import dataclass

from llava.errors import OptionError
from llava.flags import flag

GRACE_S = 5  # seconds after the drain's time limit in which replies that were stopped reach their clients


@dataclass(frozen=True)
class HostingOptions:
    """Connections, names and shutdown of a server."""

    head_timeout_s: float = flag(
        10.0,
        "maximum time until the head of a request has arrived, in seconds",
        name="--head-timeout",
        metavar="SECONDS",
    )
    max_connections: int = flag(
        1000, "maximum number of open connections; beyond it the longest idle one is closed for a new one"
    )
    drain_timeout_s: float = flag(
        60.0,
        "time that accepted requests have to end after SIGTERM, in seconds",
        name="--drain-timeout",
        metavar="SECONDS",
    )
    allowed_hosts: str | None = flag(
        None,
        "host names, separated by commas, by which clients may address this server, in addition to localhost and the "
        "one that it listens at; *.example.org for subdomains, * for any",
        metavar="NAMES",
    )

    def __post_init__(self) -> None:
        times = {"--head-timeout": self.head_timeout_s, "--drain-timeout": self.drain_timeout_s}
        for name, seconds in times.items():
            if not 0 < seconds < float("inf"):  # NaN is refused, too
                raise OptionError(f"{name} is {seconds:g}; expected seconds above 0")
        if self.max_connections < 1:
            raise OptionError(f"--max-connections is {self.max_connections}; expected 1 or more")

    @property
    def extra_hosts(self) -> tuple[str, ...]:
        """The names of ``--allowed-hosts``."""
        return tuple(name.strip() for name in (self.allowed_hosts or "").split(",") if name.strip())
