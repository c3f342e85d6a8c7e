"""Checks the training data before the first step, and reports every fault with its record."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

from tqdm import tqdm

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import Conversation, SeparatorStyle
from llava.errors import DataError, ImageError
from llava.files.images import check_image
from llava.train.data.length_check import LengthCheck
from llava.train.data.preprocessing import Message, reserved_marks, takes_empty_questions
from llava.train.data.records import Record, form_faults, image_faults, message_faults, read_records, sample_name


def check_data(
    data_path: str, image_folder: str | None, template: Conversation, lengths: LengthCheck | None = None
) -> int:
    """Check every record and its image; return the number of records. Raises ``DataError`` that lists every fault.

    lengths: counts what is left of the records' answers, warns of those that are cut, and refuses a file of which
    nothing is left.
    """
    records = read_records(data_path)
    faults = []
    for index, record in enumerate(tqdm(records, desc="checking data", disable=None)):
        name = sample_name(record, index)
        found = list(record_faults(record, image_folder, template))
        if lengths is not None and not found:
            found = list(_length_faults(record, name, image_folder, lengths))
        faults += [f"record {name}: {fault}" for fault in found]
    if faults:
        listed = "\n".join(faults)
        raise DataError(
            f"{data_path}: {len(faults)} fault(s) in {len(records)} records; fix or remove these records:\n{listed}"
        )
    if lengths is not None:
        lengths.report()
    return len(records)


def _length_faults(record: Record, name: str, image_folder: str | None, lengths: LengthCheck) -> Iterator[str]:
    try:
        lengths.add(record, name, image_folder)
    except DataError as error:
        yield str(error)


def record_faults(record: object, image_folder: str | None, template: Conversation) -> Iterator[str]:
    """Yield a description of each fault of one record."""
    yield from form_faults(record)
    if not isinstance(record, dict):
        return
    if not any(message_faults(record)):
        yield from _turn_faults(record["conversations"])
        yield from _text_faults(record["conversations"], template)
        yield from _tag_faults(record, template)
    if isinstance(record.get("image"), str) and not any(image_faults(record)):
        yield from _image_faults(record["image"], image_folder)


def _turn_faults(messages: list[Message]) -> Iterator[str]:
    first = 1 if messages and messages[0]["from"] == "gpt" else 0  # a greeting, which is not trained on
    turns = messages[first:]
    if not turns:
        yield "it has no question"
    for number, (message, role) in enumerate(zip(turns, cycle(("human", "gpt")), strict=False), first + 1):
        if message["from"] != role:
            yield f"message {number} is from {message['from']!r}, expected {role!r}: human and gpt take turns"
            return
    if len(turns) % 2:
        yield "the last question has no answer"


def _text_faults(messages: list[Message], template: Conversation) -> Iterator[str]:
    marks = reserved_marks(template)
    for number, message in enumerate(messages, 1):
        text = message["value"]
        if message["from"] == "gpt":
            if not text.strip():
                yield f"message {number} is an empty answer"
            if DEFAULT_IMAGE_TOKEN in text:
                yield f"message {number} is an answer that holds {DEFAULT_IMAGE_TOKEN}; it belongs in the question"
        elif not text and not takes_empty_questions(template):
            yield f"message {number} is an empty question, which this template has no form for"
        for mark in marks:
            if mark in text:
                yield f"message {number} holds {mark!r}, by which the template separates turns"


def _tag_faults(record: Record, template: Conversation) -> Iterator[str]:
    messages = record["conversations"]
    tags = sum(message["value"].count(DEFAULT_IMAGE_TOKEN) for message in messages)
    images = 1 if "image" in record else 0
    if tags != images:
        yield f"{tags} {DEFAULT_IMAGE_TOKEN} for {images} image(s)"
    if template.sep_style is SeparatorStyle.PLAIN:
        if len(messages) != 2:
            yield f"the plain template takes one question and one answer, this record has {len(messages)} messages"
        elif DEFAULT_IMAGE_TOKEN not in messages[0]["value"]:
            yield f"the plain template needs {DEFAULT_IMAGE_TOKEN} in the question"


def _image_faults(image: str, image_folder: str | None) -> Iterator[str]:
    try:
        check_image(Path(image_folder or "") / image)
    except ImageError as error:
        yield str(error)
    except OSError as error:  # a name that is too long, a disk that fails
        yield f"'image' cannot be opened: {error.strerror}"
