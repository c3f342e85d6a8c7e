"""Says how much memory what is kept of prompts and images may take: by the flag ``--reuse-cache-gb``, or a default."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import torch

from ada.memory.free_memory import free_bytes
from ada.memory.gigabytes import gigabytes_flag, read_gigabytes

FLAG = "--reuse-cache-gb"
MAX_DEFAULT = 1 << 30  # bytes
SHARE_OF_FREE = 16

HELP = (
    "GB for what is kept of images and prompts, so that a further question or turn, or another budget, need not read "
    "them again; by default a sixteenth of what is free on the device, 1.07 at most; with 0 nothing is kept"
)


def add_reuse_limit_flag(parser: argparse._ActionsContainer) -> None:
    """Add ``--reuse-cache-gb``, None by default."""
    parser.add_argument(FLAG, type=gigabytes_flag(FLAG), metavar="GB", help=HELP)


def reuse_limit_of(options: Mapping[str, Any], device: torch.device) -> int:
    """Return the limit in bytes: 0 for a program without the flag. Raises OptionError for a value that is no number."""
    if "reuse_cache_gb" not in options:
        return 0
    value = options["reuse_cache_gb"]
    if value is not None:
        return read_gigabytes(FLAG, value)
    free = free_bytes(device)
    return MAX_DEFAULT if free is None else min(MAX_DEFAULT, free // SHARE_OF_FREE)
