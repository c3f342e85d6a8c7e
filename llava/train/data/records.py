"""Reads the records of a training file, and finds those that no sample can be made of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llava.errors import DataError
from llava.files.fields import shown
from llava.files.jsonl import read_json

Record = dict[str, Any]

# Keys under which other programs' records have what a model sees or hears. What only describes it (image_id, video_fps)
# is under none of them; a place to find the image at may go with "image" itself.
_MEDIUM = r"(image|img|picture|photo|frame|video|audio|sound|speech|media)"
_MEDIA = re.compile(rf"{_MEDIUM}s|(video|audio|sound|speech|media)", re.IGNORECASE)
_SOURCE = re.compile(rf"{_MEDIUM}s?[_-]?(url|uri|path|file|filename|name|data|base64|bytes|list)?s?", re.IGNORECASE)


def read_records(path: str) -> list[Record]:
    """Read the records of a training file. Raises ``DataError`` where it is missing, not JSON, or not a list."""
    records = read_json(Path(path), "--data_path", any_text=True)
    if not isinstance(records, list) or not records:
        raise DataError(f"--data_path {path} holds no records; expected a JSON list of conversations")
    return records


def sample_name(record: object, index: int) -> str:
    """Return how messages name a record: its index in the file, and its id where it has one."""
    if isinstance(record, dict) and "id" in record:
        return f"{index} (id {shown(record['id'])})"
    return str(index)


def form_faults(record: object) -> Iterator[str]:
    """Yield a description of each fault for which no sample can be made of a record."""
    if not isinstance(record, dict):
        yield f"{shown(record)} is not an object with a list 'conversations'"
        return
    yield from image_faults(record)
    yield from _media_faults(record)
    yield from message_faults(record)


def message_faults(record: Record) -> Iterator[str]:
    """Yield a description of each fault in the form of a record's messages."""
    messages = record.get("conversations")
    if not isinstance(messages, list):
        yield f"not an object with a list 'conversations': {_found(record, 'conversations')}"
        return
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict):
            yield f"message {number} is not an object with the texts 'from' and 'value', but {shown(message)}"
            continue
        for key in ("from", "value"):
            if not isinstance(message.get(key), str):
                yield f"message {number} is not an object with the texts 'from' and 'value': {_found(message, key)}"
            elif not _is_text(message[key]):
                yield f"message {number} holds half of a surrogate pair, which is no character, in {key!r}"
        for key, value in _unread(message, _SOURCE):
            yield f"message {number}: {key!r} is {shown(value)}, which would not be seen: an image is the record's"


def usable(record: Any, index: int) -> Record:
    """Return a record that a sample can be made of. Raises ``DataError``, naming the record and its first fault."""
    for fault in form_faults(record):
        raise DataError(f"record {sample_name(record, index)}: {fault}")
    return record  # type: ignore[no-any-return]


def image_faults(record: Record) -> Iterator[str]:
    """Yield a description of what is wrong with the form of a record's field "image", if anything is."""
    if "image" not in record:
        return
    image = record["image"]
    if not isinstance(image, str):
        several = isinstance(image, list) and len(image) > 1
        yield f"'image' is {shown(image)}, expected a path" + (": a record has one image" if several else "")
    elif not image.strip():
        yield f"'image' is {shown(image)}, expected a path; a record without an image has no 'image'"
    elif "\0" in image or not _is_text(image):
        yield f"'image' is {shown(image)}, which no path can hold"


def _media_faults(record: Record) -> Iterator[str]:
    for key, value in _unread(record, _MEDIA if "image" in record else _SOURCE):
        if key != "image":
            yield (
                f"{key!r} is {shown(value)}, which would not be seen: a record has at most one image, its path under "
                "'image', and an <image> tag in the question"
            )


def _unread(fields: Record, names: re.Pattern[str]) -> Iterator[tuple[str, object]]:
    """Yield the fields with such names that hold something."""
    for key, value in fields.items():
        if names.fullmatch(key) and isinstance(value, (str, list, dict)) and value:
            yield key, value


def _found(fields: Record, key: str) -> str:
    return f"{key!r} is {shown(fields[key])}" if key in fields else f"it has no {key!r}"


def _is_text(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
