"""Reads a served answer: the objects of a stream, each ended by a zero byte."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from llava.serve.protocol.schemas import END


def objects(data: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Pieces of bytes, as they come -> objects. What stands behind the last zero byte counts too: a refusal has none.

    Raises ValueError for what is no JSON object.
    """
    rest = b""
    for piece in data:
        *whole, rest = (rest + piece).split(END)
        yield from (_object(part) for part in whole if part)
    if rest:
        yield _object(rest)


def _object(part: bytes) -> dict[str, Any]:
    value = json.loads(part)
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, found {part[:100]!r}")
    return value
