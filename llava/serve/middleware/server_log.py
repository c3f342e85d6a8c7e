"""Sets up logging for the servers: one line for each event, on standard error, uvicorn's included."""

from __future__ import annotations

import logging

FORMAT = "%(asctime)s | %(levelname)s | %(name)s | %(message)s"


def set_up_logging(level: int = logging.INFO) -> None:
    """Configure the root logger of a server's process."""
    logging.basicConfig(level=level, format=FORMAT, datefmt="%Y-%m-%d %H:%M:%S")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log a line for every heartbeat
