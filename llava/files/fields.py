"""Reads fields of users' records: each is there and of its type, or a ``DataError`` names record, field and value."""

from __future__ import annotations

import math
from typing import Any, TypeVar

from llava.errors import DataError

T = TypeVar("T")

EXPECTED: dict[type, str] = {
    str: "a text",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}
Identifier = str | int


def shown(value: object) -> str:
    """Return a value as messages show it: at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def typed(value: object, kind: type[T], what: str) -> T:
    """Return ``value`` where it is of the JSON type ``kind``; for ``float`` any finite number.

    Raises ``DataError``, which begins with ``what``, for other values: true is no integer, null is nothing of these.
    """
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not _is_finite(value):
            raise DataError(f"{what} is {shown(value)}; expected a finite number")
        return value  # type: ignore[return-value]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise DataError(f"{what} is {shown(value)}; expected {EXPECTED[kind]}")
    return value


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def raw_field(record: object, name: str, where: str) -> Any:
    """Return a record's field, of any type. Raises ``DataError``, which begins with ``where``, if it is not there."""
    fields: dict[str, Any] = typed(record, dict, where)
    if name not in fields:
        raise DataError(f"{where} lacks {name!r}; it has {', '.join(map(repr, fields)) or 'nothing'}")
    return fields[name]


def required_field(record: object, name: str, kind: type[T], where: str) -> T:
    """Return a record's field of the JSON type ``kind``.

    Raises ``DataError``, which begins with ``where``, if the record is no object, lacks the field, or holds another
    type there.
    """
    return typed(raw_field(record, name, where), kind, f"{where}: {name!r}")


def optional_field(record: object, name: str, kind: type[T], where: str) -> T | None:
    """Return a record's field as ``required_field`` does; None where it is not there, or null."""
    value = typed(record, dict, where).get(name)
    return None if value is None else typed(value, kind, f"{where}: {name!r}")


def typed_id(value: object, what: str) -> Identifier:
    """Return a value that is an id, a text or an integer. Raises ``DataError``, which begins with ``what``."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{what} is {shown(value)}; expected an id, a text or an integer")
    return value


def id_field(record: object, name: str, where: str) -> Identifier:
    """Return a field that is an id, a text or an integer. Raises ``DataError`` as ``required_field`` does."""
    return typed_id(raw_field(record, name, where), f"{where}: {name!r}")


def list_of(values: object, kind: type[T], what: str) -> list[T]:
    """Return a list whose items are all of the JSON type ``kind``. Raises ``DataError``, which begins with ``what``."""
    return [typed(value, kind, f"{what}, item {number}") for number, value in enumerate(typed(values, list, what), 1)]


def objects_of(values: object, what: str) -> list[dict[str, Any]]:
    """Return a list of JSON objects. Raises ``DataError``, which begins with ``what``."""
    return list_of(values, dict, what)
