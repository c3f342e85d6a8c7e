"""Says how much memory narrow layers may take: by the flag ``--narrow-cache-gb``, or by what is free."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ada.memory.gigabytes import gigabytes_flag, read_gigabytes

FLAG = "--narrow-cache-gb"
MIN_BYTES = 256 << 20  # in which a small model keeps many plans
SHARE_OF_FREE = 4  # the rest is for the KV cache, activations and other programs

HELP = (
    "GB that the weights of narrow layers may take; by default those of one copy of the tunable layers, of a small "
    "model 0.27, but no more than a quarter of what is free on the device; with 0 no layer is cut, and a plan of heads "
    "and neurons saves no time"
)


@dataclass(frozen=True)
class DefaultLimit:
    """The limit where none is given; tunable_bytes: of the tunable layers' projections, which hold any one plan."""

    tunable_bytes: int

    def of(self, free: int | None) -> int:
        """Return the limit in bytes where so many are free; None where that is not known."""
        wanted = max(MIN_BYTES, self.tunable_bytes)
        return wanted if free is None else min(wanted, free // SHARE_OF_FREE)


def add_narrow_limit_flag(parser: argparse._ActionsContainer) -> None:
    """Add ``--narrow-cache-gb``, None by default."""
    parser.add_argument(FLAG, type=gigabytes_flag(FLAG), metavar="GB", help=HELP)


def narrow_limit_of(options: Mapping[str, Any]) -> int | None:
    """Return the options' limit in bytes, None where they name none. Raises OptionError."""
    value = options.get("narrow_cache_gb")
    return None if value is None else read_gigabytes(FLAG, value)
