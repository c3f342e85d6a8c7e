"""Runs a command-line program's work: sets up logging, prints user errors, and returns the exit code."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from llava.errors import LlavaError

# Messages of libraries that no user of this project needs: logger -> beginnings of the messages.
UNNEEDED_MESSAGES = {
    # peft imports bitsandbytes, which looks for an optional kernel package on every start. No program needs it.
    "bitsandbytes.backends.cpu.ops": ("Failed to load CPU gemm_4bit_forward from kernels-community",),
    # Steps between "running on ..." and "shutting down", which are kept.
    "uvicorn.error": (
        "Started server process",
        "Waiting for application startup",
        "Application startup complete",
        "Waiting for application shutdown",
        "Application shutdown complete",
        "Finished server process",
    ),
}


def run_program(work: Callable[[], int | None]) -> int:
    """Run ``work`` and return the exit code: what ``work`` returned, 0 for None; 2, with the message on stderr, for a
    user error, among them a file or folder that cannot be opened or written.

    Sets up logging of warnings; a program that logs otherwise calls ``logging.basicConfig`` before.
    """
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    hide_unneeded_messages()
    try:
        return work() or 0
    except LlavaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.filename is None:  # not about a file that a flag names
            raise
        print(f"error: cannot use {str(error.filename)!r}: {error.strerror}", file=sys.stderr)
        return 2


def hide_unneeded_messages() -> None:
    """Drop the messages in ``UNNEEDED_MESSAGES``; everything else that their loggers say is still shown."""
    for name, beginnings in UNNEEDED_MESSAGES.items():
        logger = logging.getLogger(name)
        if not any(isinstance(known, _HideMessages) for known in logger.filters):
            logger.addFilter(_HideMessages(beginnings))


class _HideMessages(logging.Filter):
    """A filter that drops the messages that begin with one of the given texts."""

    def __init__(self, beginnings: tuple[str, ...]) -> None:
        super().__init__()
        self.beginnings = beginnings

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(self.beginnings)
