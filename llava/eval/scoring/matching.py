"""Matches answers to their questions by id, and divides without dividing by zero; shared by all scorers.

Ids are compared as texts: a tool that rewrites a file may turn 1 into "1", and no two questions differ in that alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from llava.errors import DataError
from llava.files.fields import id_field, required_field, shown
from llava.files.jsonl import Record


def by_id(records: object, key: str, where: str) -> dict[str, Record]:
    """Index records by the text of one of their fields; ``where`` names them in messages.

    Raises ``DataError`` where these are no records, one lacks the field, or two have the same value.
    """
    if isinstance(records, str) or not isinstance(records, Iterable):
        raise DataError(f"{where} is {shown(records)}; expected a list of objects")
    found: dict[str, Record] = {}
    for number, record in enumerate(records, 1):
        value = id_field(record, key, f"{where}, record {number}")
        if str(value) in found:
            raise DataError(f"{where} holds {key} {shown(value)} twice; is it two runs in one file?")
        found[str(value)] = record
    return found


def check_same(answered: Iterable[str], asked: Iterable[str], where: str, partial: bool = False) -> None:
    """Raise ``DataError`` unless answers and questions have the same ids; ``where`` names the answers.

    partial: answers may be missing.
    """
    given, wanted = set(answered), set(asked)
    if given - wanted:
        raise DataError(f"{where} answers {_some(given - wanted)}, which the questions do not hold; is it another set?")
    if wanted - given and not partial:
        raise DataError(f"{where} lacks {len(wanted - given)} of {len(wanted)} answers: {_some(wanted - given)}")


def _some(ids: set[str]) -> str:
    names = sorted(key if len(key) <= 60 else f"{key[:57]}..." for key in ids)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def text_of(record: object, where: str) -> str:
    """Return an answer's text. Raises ``DataError``, which begins with ``where``, for an answer without text."""
    about = f"{where}: the answer to {shown(record.get('question_id'))}" if isinstance(record, dict) else where
    return required_field(record, "text", str, about)


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
