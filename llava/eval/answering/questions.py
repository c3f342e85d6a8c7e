"""Questions as the programs ask them, and their share of a process."""

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


@dataclass(frozen=True)
class Question:
    """One question. ``text`` goes to the model, without image tags; ``prompt`` goes to the record; ``picture`` opens
    the picture, where there is one; ``before`` and ``after`` are record fields of one benchmark's own, in front of
    the prompt and behind the answer."""

    question_id: Any
    prompt: str
    text: str
    picture: Callable[[], Image.Image] | None = None
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fields(self) -> dict[str, Any]:
        """The record's fields up to the answer."""
        return {"question_id": self.question_id, **self.before, "prompt": self.prompt}


def split_list(lst: Sequence[Any], n: int) -> list[Sequence[Any]]:
    """The list in ``n`` parts of like length, in order; the last may be shorter, or there may be fewer."""
    size = max(1, math.ceil(len(lst) / n))
    return [lst[start : start + size] for start in range(0, len(lst), size)]


def get_chunk(lst: Sequence[Any], n: int, k: int) -> Sequence[Any]:
    """Part ``k``, counted from 0, of ``n``; empty where the list is too short for so many."""
    parts = split_list(lst, n)
    return parts[k] if k < len(parts) else []


def picture_file(folder: Path, name: str) -> Callable[[], Image.Image]:
    """What opens a picture. Raises ``DataError`` where there is no such file."""
    path = folder / name
    if not path.is_file():
        raise DataError(f"there is no picture {name!r} in --image-folder {folder}")
    return functools.partial(load_image, str(path))


def field_of(record: Record, name: str, place: str) -> Any:
    """A record's field. Raises ``DataError`` where it is missing."""
    if name not in record:
        raise DataError(f"{place} lacks {name!r}; it has {', '.join(map(repr, record)) or 'nothing'}")
    return record[name]
