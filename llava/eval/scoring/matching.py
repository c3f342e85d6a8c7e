"""Matches answers to their questions, and divides without dividing by zero; shared by all scorers."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from llava.errors import DataError
from llava.files.jsonl import Record


def by_id(records: Iterable[Record], key: str, where: str) -> dict[Any, Record]:
    """Index records by one of their fields; ``where`` names them in messages.

    Raises ``DataError`` where a record lacks the field, or two have the same value.
    """
    found: dict[Any, Record] = {}
    for number, record in enumerate(records, 1):
        if key not in record:
            raise DataError(f"{where}, record {number} lacks {key!r}; it has {', '.join(map(repr, record))}")
        if record[key] in found:
            raise DataError(f"{where} holds {key} {record[key]!r} twice; is it two runs in one file?")
        found[record[key]] = record
    return found


def check_same(answered: Iterable[Hashable], asked: Iterable[Hashable], where: str) -> None:
    """Raise ``DataError`` unless answers and questions have the same ids; ``where`` names the answers."""
    given, wanted = set(answered), set(asked)
    if given - wanted:
        raise DataError(f"{where} answers {_some(given - wanted)}, which the questions do not hold; is it another set?")
    if wanted - given:
        raise DataError(f"{where} lacks {len(wanted - given)} of {len(wanted)} answers: {_some(wanted - given)}")


def _some(ids: set[Hashable]) -> str:
    names = sorted(map(repr, ids))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def text_of(record: Mapping[str, Any], where: str) -> str:
    """Return an answer's text. Raises ``DataError``, which begins with ``where``, for an answer without text."""
    text = record.get("text")
    if not isinstance(text, str):
        raise DataError(f"{where}: the answer to {record.get('question_id')!r} has no text")
    return text


def share(part: int | float, total: int, what: str) -> float:
    """Return ``part / total``. Raises ``DataError``, which begins with ``what``, where the total is 0."""
    if not total:
        raise DataError(f"{what}; nothing can be divided by 0")
    return part / total


def mean(values: Sequence[float], what: str) -> float:
    """Return the mean; ``what`` names the values. Raises ``DataError`` where there are none."""
    return share(sum(values), len(values), f"there are no {what}")


def percent_by(groups: Mapping[str, Sequence[bool]]) -> dict[str, float]:
    """Return each group's share of hits in percent, in the order of the groups' names."""
    return {name: 100 * sum(hits) / len(hits) for name, hits in sorted(groups.items())}
