"""Reads flags that limit memory: a number of GB, 0 included."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

from llava.errors import OptionError

GB = 10**9  # bytes


def read_gigabytes(flag: str, value: object) -> int:
    """Return the bytes of a number of GB, or of its text. Raises OptionError for what is no such number."""
    try:
        gigabytes = float(str(value))
    except ValueError:
        gigabytes = math.nan
    if not (math.isfinite(gigabytes) and gigabytes >= 0):
        raise OptionError(f"{flag} is {value!r}; expected a number of GB from 0 up, such as 2.5")
    return int(gigabytes * GB)


def gigabytes_flag(flag: str) -> Callable[[str], float]:
    """Return what reads the flag, as argparse's ``type``: GB."""

    def read(text: str) -> float:
        try:
            return read_gigabytes(flag, text) / GB
        except OptionError as error:
            raise argparse.ArgumentTypeError(str(error).removeprefix(f"{flag} is ")) from None

    return read
