"""Finds the answers that an answer file already has, and refuses those of another run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from llava.errors import OptionError
from llava.eval.answering.questions import IMAGES, Question, shown_settings
from llava.files.jsonl import Record, RecordFile

REMEDY = "remove it, or choose another --answers-file"


def existing_answers(
    file: RecordFile, questions: Mapping[int, Question], settings: Mapping[str, Any]
) -> dict[int, Record]:
    """Return the records that ``file`` already has, by the index of their question.

    A file may ask the same question twice: each record goes to the first such question that has no answer yet. Raises
    ``OptionError`` where a record answers none of ``questions`` or was made with other ``settings``, and for a file
    that has its final name but not all answers.
    """
    path = file.path if file.complete else file.part
    names = {name for question in questions.values() for name in question.fields}
    unanswered: dict[str, list[int]] = {}
    for index in sorted(questions, reverse=True):  # so that pop() returns the first
        unanswered.setdefault(_key(questions[index].fields, names), []).append(index)
    answered: dict[int, Record] = {}
    for record in file.records:
        indices = unanswered.get(_key(record, names))
        if not indices:
            raise OptionError(
                f"{path} holds an answer to question {record.get('question_id')!r}, which is not asked here, or is "
                f"answered there already; {REMEDY}"
            )
        answered[indices.pop()] = record
    for record in file.records:
        _check_settings(str(path), record, settings)
    if file.complete and len(answered) < len(questions):
        raise OptionError(f"{path} holds {len(answered)} answers to {len(questions)} questions; {REMEDY}")
    return answered


def _key(fields: Mapping[str, Any], names: Iterable[str]) -> str:
    return json.dumps({name: fields.get(name) for name in names}, sort_keys=True)


def _check_settings(path: str, record: Record, settings: Mapping[str, Any]) -> None:
    metadata = record.get("metadata")
    recorded = metadata.get("settings") if isinstance(metadata, dict) else None
    if not isinstance(recorded, dict):
        raise OptionError(f"{path} holds answers that do not say which settings they were made with; {REMEDY}")
    expected = {name: value for name, value in settings.items() if name != IMAGES or IMAGES in recorded}
    if recorded != expected:  # a record of an earlier release does not say which images were asked about
        changed = sorted(name for name in {*recorded, *expected} if recorded.get(name) != expected.get(name))
        raise OptionError(f"{path} holds answers with another {shown_settings(changed)}; {REMEDY}")
