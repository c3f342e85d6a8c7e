"""Questions of a benchmark, and the part of them that one process answers."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from llava.errors import DataError
from llava.files.jsonl import Record
from llava.mm_utils import load_image

LETTER_PROMPT = "Answer with the option's letter from the given choices directly."

OpenImage = Callable[[], Image.Image]


@dataclass(frozen=True)
class Question:
    """One question of a benchmark, and the fields that its record in the answer file has.

    text: what the model is asked, without image tags. prompt: the record's ``prompt``. open_image: returns the image;
    None for a question without one. before, after: the benchmark's own fields of the record, which are written before
    ``prompt`` and after the answer.
    """

    question_id: Any
    prompt: str
    text: str
    open_image: OpenImage | None = None
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fields(self) -> dict[str, Any]:
        """The record's fields up to the answer."""
        return {"question_id": self.question_id, **self.before, "prompt": self.prompt}


def split_list(lst: Sequence[Any], n: int) -> list[Sequence[Any]]:
    """Split a list into up to ``n`` parts of equal length, in order; the last part may be shorter."""
    size = max(1, math.ceil(len(lst) / n))
    return [lst[start : start + size] for start in range(0, len(lst), size)]


def get_chunk(lst: Sequence[Any], n: int, k: int) -> Sequence[Any]:
    """Return part ``k`` (from 0) of ``n``; empty where the list has fewer parts."""
    parts = split_list(lst, n)
    return parts[k] if k < len(parts) else []


def image_opener(folder: Path, name: str) -> OpenImage:
    """Return a function that opens the image ``name`` of a folder. Raises ``DataError`` where there is no such file."""
    path = folder / name
    if not path.is_file():
        raise DataError(f"there is no image {name!r} in --image-folder {folder}")
    return functools.partial(load_image, str(path))


def required_field(record: Record, name: str, where: str) -> Any:
    """Return a record's field. Raises ``DataError``, which begins with ``where``, if the record lacks it."""
    if name not in record:
        raise DataError(f"{where} lacks {name!r}; it has {', '.join(map(repr, record)) or 'nothing'}")
    return record[name]
