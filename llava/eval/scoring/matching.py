"""What the scorers share: answers matched to their questions, and means that know what they are of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llava.errors import DataError
from llava.files.jsonl import Record


def by_id(records: Iterable[Record], key: str, place: str) -> dict[Any, Record]:
    """Records by one of their fields. Raises ``DataError`` where one lacks it, or two share it."""
    found: dict[Any, Record] = {}
    for number, record in enumerate(records, 1):
        if key not in record:
            raise DataError(f"{place}, record {number} lacks {key!r}; it has {', '.join(map(repr, record))}")
        if record[key] in found:
            raise DataError(f"{place} holds {key} {record[key]!r} twice; is it two runs in one file?")
        found[record[key]] = record
    return found


def check_same(answered: Iterable[Any], asked: Iterable[Any], place: str) -> None:
    """Raise ``DataError`` unless answers and questions are of the same ids."""
    given, wanted = set(answered), set(asked)
    if given - wanted:
        raise DataError(f"{place} answers {_some(given - wanted)}, which the questions do not hold; is it another set?")
    if wanted - given:
        raise DataError(f"{place} lacks {len(wanted - given)} of {len(wanted)} answers: {_some(wanted - given)}")


def _some(ids: set[Any]) -> str:
    names = sorted(map(repr, ids))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def text_of(record: Mapping[str, Any], place: str) -> str:
    """An answer's text."""
    text = record.get("text")
    if not isinstance(text, str):
        raise DataError(f"{place}: the answer to {record.get('question_id')!r} has no text")
    return text


def share(part: int | float, whole: int, what: str) -> float:
    """``part / whole``. Raises ``DataError`` where there is nothing to divide by."""
    if not whole:
        raise DataError(f"{what}; nothing can be divided by 0")
    return part / whole


def mean(values: Sequence[float], what: str) -> float:
    """The mean. Raises ``DataError`` where there are no values."""
    return share(sum(values), len(values), f"there are no {what}")
