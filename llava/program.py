"""Runs a command-line program's work: sets up logging, prints user errors, and returns the exit code."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from llava.errors import LlavaError


def run_program(work: Callable[[], int | None]) -> int:
    """Do ``work`` and return the exit code: what ``work`` returned, 0 for None, 2 for a user error.

    A user error's message goes to stderr. Logging that a program has set up before stays as it is.
    """
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    try:
        return work() or 0
    except LlavaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
