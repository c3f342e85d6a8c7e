"""The pre-flight check of the training data: every fault with its record, before the first step."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import Conversation, SeparatorStyle
from llava.errors import DataError
from llava.train.lazy_dataset import Record, count_tags, read_records, sample_name

SHOWN = 20  # faults that the error message lists; all of them go to the log

log = logging.getLogger(__name__)


def check_data(data_path: str, image_folder: str | None, template: Conversation) -> int:
    """Look at every record and picture header; the number of records. Raises ``DataError`` that lists the faults."""
    records = read_records(data_path)
    faults = []
    for index, record in enumerate(tqdm(records, desc="checking data", disable=None)):
        name = sample_name(record, index) if isinstance(record, dict) else str(index)
        for fault in record_faults(record, image_folder, template):
            faults.append(f"record {name}: {fault}")
            log.error(faults[-1])
    if faults:
        more = f"\n... and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise DataError(
            f"{data_path}: {len(faults)} faults in {len(records)} records; mend or remove these records:\n"
            + "\n".join(faults[:SHOWN])
            + more
        )
    return len(records)


def record_faults(record: Any, image_folder: str | None, template: Conversation) -> Iterator[str]:
    """What is wrong with one record, in words."""
    if not isinstance(record, dict) or not isinstance(record.get("conversations"), list):
        yield "not an object with a list 'conversations'"
        return
    messages = record["conversations"]
    if not all(
        isinstance(m, dict) and isinstance(m.get("from"), str) and isinstance(m.get("value"), str) for m in messages
    ):
        yield "a message is not an object with the texts 'from' and 'value'"
        return
    yield from _turn_faults(messages, template)
    yield from _image_faults(record, image_folder)


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("from", "value"))


def _turn_faults(messages: list[dict[str, str]], template: Conversation) -> Iterator[str]:
    turns = messages[1:] if messages and messages[0]["from"] == "gpt" else messages
    if not turns:
        yield "no turns"
        return
    for index, message in enumerate(turns):
        expected = ("human", "gpt")[index % 2]
        if message["from"] != expected:
            yield f"message {index + 1} is from {message['from']!r}, expected {expected!r}: human and gpt take turns"
            return
    if len(turns) % 2:
        yield "the last question has no answer"
    if template.sep_style is SeparatorStyle.PLAIN and len(turns) != 2:
        yield f"the plain template takes one request and one answer, this record has {len(turns)} messages"
    for index, message in enumerate(turns[1::2]):
        yield from _answer_faults(index + 1, message["value"], template)


def _answer_faults(number: int, answer: str, template: Conversation) -> Iterator[str]:
    if not answer.strip():
        yield f"answer {number} is empty"
    if DEFAULT_IMAGE_TOKEN in answer:
        yield f"answer {number} holds {DEFAULT_IMAGE_TOKEN}"
    reserved = {
        SeparatorStyle.TWO: (template.sep2, f" {template.roles[1]}: "),
        SeparatorStyle.LLAMA_2: (template.sep2, "[/INST] "),
    }.get(template.sep_style, ())
    for text in reserved:
        if text and text in answer:
            yield f"answer {number} holds {text!r}, which the template keeps for itself"


def _image_faults(record: Record, image_folder: str | None) -> Iterator[str]:
    tags = count_tags(record)
    if "image" not in record:
        if tags:
            yield f"{tags} {DEFAULT_IMAGE_TOKEN} but no 'image'"
        return
    if not isinstance(record["image"], str):
        yield f"'image' is {record['image']!r}, expected a path"
        return
    if tags != 1:
        yield f"{tags} {DEFAULT_IMAGE_TOKEN} for 1 image"
    path = Path(image_folder or "") / record["image"]
    try:
        with Image.open(path) as image:
            image.verify()
    except FileNotFoundError:
        yield f"image {path} does not exist"
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        yield f"image {path} cannot be read: {error}"
