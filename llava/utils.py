"""Provides what programs share: log files, the choice of a device, faster loading, moderation."""

from __future__ import annotations

import asyncio
import logging
import logging.handlers
import os
import sys
from pathlib import Path
from typing import Any

import requests
import torch
import transformers

from llava.constants import LOGDIR
from llava.errors import OptionError

server_error_msg = "**NETWORK ERROR DUE TO HIGH TRAFFIC. PLEASE REGENERATE OR REFRESH THIS PAGE.**"
moderation_msg = "YOUR INPUT VIOLATES OUR CONTENT MODERATION GUIDELINES. PLEASE TRY AGAIN."
MODERATION_TIMEOUT_S = 5.0

_FORMAT = "%(asctime)s | %(levelname)s | %(name)s | %(message)s"
_DEVICES = ("cuda", "mps", "cpu")

log = logging.getLogger(__name__)


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


class StreamToLogger:
    """Logs each line that is written to it, in the place of a terminal's stream, whose other attributes it has."""

    def __init__(self, logger: logging.Logger, log_level: int = logging.INFO) -> None:
        self.terminal, self.logger, self.log_level = sys.stdout, logger, log_level
        self.linebuf = ""  # of a line that is not complete

    def __getattr__(self, attr: str) -> Any:
        return getattr(self.terminal, attr)

    def write(self, buf: str) -> None:
        """Log the complete lines of ``buf``; keep the rest for the next call."""
        *lines, self.linebuf = (self.linebuf + buf).split("\n")
        for line in lines:
            self.logger.log(self.log_level, line.rstrip())

    def flush(self) -> None:
        """Log what no end of a line has followed yet."""
        if self.linebuf:
            self.logger.log(self.log_level, self.linebuf.rstrip())
        self.linebuf = ""


def moderation_key() -> str:
    """Return the key of OpenAI's moderation, ``OPENAI_API_KEY``. Raises OptionError without one that can be sent."""
    key = os.environ.get("OPENAI_API_KEY")
    if not key or not key.isascii():
        raise OptionError("moderation needs OPENAI_API_KEY; set it to a key of OpenAI's, or of OPENAI_BASE_URL's")
    return key


def violates_moderation(text: str) -> bool:
    """Return whether OpenAI's moderation, at ``OPENAI_BASE_URL`` with the key ``OPENAI_API_KEY``, flags a text.

    False, with a line in the log, where the server gives no answer, as upstream. Raises OptionError without a key.
    """
    key, address = moderation_key(), os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
    try:
        reply = requests.post(
            f"{address.rstrip('/')}/moderations",
            headers={"Authorization": f"Bearer {key}"},
            json={"input": text.replace("\n", "")},
            timeout=MODERATION_TIMEOUT_S,
        )
        return bool(reply.json()["results"][0]["flagged"])
    except (requests.RequestException, KeyError, IndexError, TypeError) as error:
        log.warning("the text was not moderated, as %s gives no answer: %r", address, error)
        return False


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
