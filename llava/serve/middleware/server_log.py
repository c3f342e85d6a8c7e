"""How the servers log: one line each, to the standard error, uvicorn's own among them."""

from __future__ import annotations

import logging

FORMAT = "%(asctime)s | %(levelname)s | %(name)s | %(message)s"


def set_up_logging(level: int = logging.INFO) -> None:
    """Set up the root logger of a server's process."""
    logging.basicConfig(level=level, format=FORMAT, datefmt="%Y-%m-%d %H:%M:%S")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for every heart beat
