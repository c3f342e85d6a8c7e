"""Splits an answer stream into its JSON objects, each of which ends with a zero byte."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from llava.serve.protocol.schemas import END


class FrameReader:
    """Splits a byte stream into frames: feed it the bytes as they arrive, take out the frames that are complete."""

    def __init__(self) -> None:
        self.remainder = b""  # bytes after the last zero byte so far: a frame that has not ended

    def feed(self, data: bytes) -> list[bytes]:
        """Add received bytes; return the frames that they complete, without their zero bytes."""
        *frames, self.remainder = (self.remainder + data).split(END)
        return frames


def iter_chunks(data: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a stream whose bytes arrive in pieces of any size.

    Bytes after the last zero byte count as an object too: a refused request is answered with one that has none.
    Raises ValueError where a frame is not a JSON object.
    """
    reader = FrameReader()
    for piece in data:
        yield from (parse_chunk(frame) for frame in reader.feed(piece) if frame)
    if reader.remainder:
        yield parse_chunk(reader.remainder)


def parse_chunk(frame: bytes) -> dict[str, Any]:
    """Parse the JSON object of one frame. Raises ValueError where it is none."""
    value = json.loads(frame)
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, found {frame[:100]!r}")
    return value
