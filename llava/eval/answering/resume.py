"""What of an answers file is there already, and whether it belongs to this run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llava.errors import OptionError
from llava.eval.answering.questions import Question
from llava.files.jsonl import Record, RecordFile

REMEDY = "remove it, or choose another --answers-file"


def records_by_place(
    file: RecordFile, questions: dict[int, Question], settings: Mapping[str, Any]
) -> dict[int, Record]:
    """Records that are there already, by the place of their question.

    The same question may stand in a file twice, so each record takes the first place that is still open. Raises
    ``OptionError`` where a record answers no open question or was made with other settings, and for a file that has
    its final name without being whole.
    """
    path = file.path if file.complete else file.part
    open_places: dict[str, list[int]] = {}
    for place in reversed(questions):  # so that pop() gives the first
        open_places.setdefault(_key(questions[place].fields), []).append(place)
    given: dict[int, Record] = {}
    names = list(next(iter(questions.values())).fields) if questions else []
    for record in file.records:
        _check_settings(str(path), record, settings)
        places = open_places.get(_key({name: record.get(name) for name in names}))
        if not places:
            raise OptionError(
                f"{path} holds an answer to question {record.get('question_id')!r}, which is not asked here, or is "
                f"answered there already; {REMEDY}"
            )
        given[places.pop()] = record
    if file.complete and len(given) < len(questions):
        raise OptionError(f"{path} holds {len(given)} answers to {len(questions)} questions; {REMEDY}")
    return given


def _key(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, sort_keys=True)


def _check_settings(path: str, record: Record, settings: Mapping[str, Any]) -> None:
    before = (record.get("metadata") or {}).get("settings", {})
    if before != settings:
        changed = sorted(name for name in {*before, *settings} if before.get(name) != settings.get(name))
        raise OptionError(f"{path} holds answers with another {', '.join(changed)}; {REMEDY}")
