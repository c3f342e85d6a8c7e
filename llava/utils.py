"""Provides what programs share: log files, the choice of a device, faster loading."""

from __future__ import annotations

import asyncio
import logging
import logging.handlers
import sys
from pathlib import Path

import torch
import transformers

from llava.constants import LOGDIR
from llava.errors import OptionError

_FORMAT = "%(asctime)s | %(levelname)s | %(name)s | %(message)s"
_DEVICES = ("cuda", "mps", "cpu")


def build_logger(logger_name: str, logger_filename: str | None) -> logging.Logger:
    """Return a logger that writes to the terminal and, where a file name is given, to a file in ``LOGDIR``.

    The file starts again each day. Two calls with one name give the same logger.
    """
    logger = logging.getLogger(logger_name)
    if logger.handlers:
        return logger
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if logger_filename:
        folder = Path(LOGDIR)
        folder.mkdir(parents=True, exist_ok=True)
        handlers.append(
            logging.handlers.TimedRotatingFileHandler(folder / logger_filename, when="D", utc=True, encoding="utf-8")
        )
    for handler in handlers:
        handler.setFormatter(logging.Formatter(_FORMAT, datefmt="%Y-%m-%d %H:%M:%S"))
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger


def disable_torch_init() -> None:
    """Leave linear layers and layer norms uninitialised from now on: loading a checkpoint fills them anyway."""

    def leave_as_it_is(self: torch.nn.Module) -> None:
        pass

    torch.nn.Linear.reset_parameters = leave_as_it_is  # type: ignore[method-assign]
    torch.nn.LayerNorm.reset_parameters = leave_as_it_is  # type: ignore[method-assign]


def device_available(kind: str) -> bool:
    """Return whether torch can use "cuda", "mps" or "cpu" here."""
    if kind == "cuda":
        return torch.cuda.is_available()
    return kind == "cpu" or torch.backends.mps.is_available()


def pick_device(name: str | None = None) -> str:
    """Return the device that a flag names ("cuda", "cuda:1", "mps", "cpu"); without one, the first available.

    Raises OptionError for a device that is unknown, or not available.
    """
    if not name or name == "auto":
        return next(kind for kind in _DEVICES if device_available(kind))
    kind = name.partition(":")[0]
    if kind not in _DEVICES:
        raise OptionError(f"--device is {name!r}; expected one of {', '.join(_DEVICES)}, or cuda:N")
    if not device_available(kind):
        available = ", ".join(device for device in _DEVICES if device_available(device))
        raise OptionError(f"--device is {name!r}, which is not available here; available: {available}")
    return name


def pretty_print_semaphore(semaphore: asyncio.Semaphore | None) -> str:
    """Describe an asyncio semaphore for a log line; "None" where there is none."""
    if semaphore is None:
        return "None"
    return f"Semaphore(value={semaphore._value}, locked={semaphore.locked()})"


def progress_only_on_terminals() -> None:
    """Disable transformers' progress bars where stderr is not a terminal: in a log they are noise."""
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
