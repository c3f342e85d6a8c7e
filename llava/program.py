"""What every command-line program does around its work: logging, and an end that the user can read."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from llava.errors import LlavaError


def run_program(work: Callable[[], int | None]) -> int:
    """Do ``work`` and return the exit code: what ``work`` returned, 0 for None; 2, with the message on stderr, for what
    the user can mend. A program that logs in a way of its own has set that up before."""
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    try:
        return work() or 0
    except LlavaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
