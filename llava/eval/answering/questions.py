"""Questions of a benchmark, and the part of them that one process answers."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from llava.constants import DEFAULT_IMAGE_TOKEN, IMAGE_PLACEHOLDER
from llava.errors import DataError
from llava.files.fields import shown
from llava.mm_utils import load_image

END_BYTES = 4096  # of an image's file, that say at either end which one it is
IMAGES = "images"  # what the hash of all images is called where a run's settings are recorded
LETTER_PROMPT = "Answer with the option's letter from the given choices directly."


class OpenImage(Protocol):
    """A function that opens a question's image, and says which image that is."""

    @property
    def identity(self) -> str:
        """A hash that differs where images do."""

    def __call__(self, *, turn_by_exif: bool = False) -> Image.Image:
        """Return the image in RGB, as it is stored, or turned upright as its EXIF orientation says."""


@dataclass(frozen=True)
class ImageFile:
    """Opens the image in a file."""

    path: Path

    def __call__(self, *, turn_by_exif: bool = False) -> Image.Image:
        """Return the image in RGB. Raises ``ImageError`` for a file that is none."""
        return load_image(str(self.path), turn_by_exif=turn_by_exif)

    @property
    def identity(self) -> str:
        """A hash of the file's name and size, and of both of its ends: reading all of many files would take minutes.

        Raises ``DataError`` for a file that cannot be read.
        """
        try:
            with self.path.open("rb") as stream:
                size = self.path.stat().st_size
                ends = stream.read(END_BYTES)
                stream.seek(max(0, size - END_BYTES))
                ends += stream.read(END_BYTES)
        except OSError as error:
            raise DataError(f"the image {self.path} cannot be read: {error.strerror}") from error
        return hashlib.sha256(f"{self.path.name} {size} ".encode(errors="surrogateescape") + ends).hexdigest()


@dataclass(frozen=True)
class Question:
    """One question of a benchmark, and the fields that its record in the answer file has.

    text: what the model is asked, without image tags. prompt: the record's ``prompt``. open_image: returns the image;
    None for a question without one. before, after: the benchmark's own fields of the record, which are written before
    ``prompt`` and after the answer. answer_field: what the answer is called in the record.
    """

    question_id: Any
    prompt: str
    text: str
    open_image: OpenImage | None = None
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    answer_field: str = "text"

    @property
    def fields(self) -> dict[str, Any]:
        """The record's fields up to the answer."""
        return {"question_id": self.question_id, **self.before, "prompt": self.prompt}


def images_fingerprint(questions: Iterable[Question]) -> str:
    """Hash which images the questions are about, in their order, into 16 hex digits; "" where none has one."""
    digest = hashlib.sha256()
    known: dict[OpenImage | None, str] = {None: "none"}
    openers = [question.open_image for question in questions]
    for open_image in openers:
        if open_image is not None and open_image not in known:  # many questions are about one image
            known[open_image] = open_image.identity
        digest.update(known[open_image].encode())
    return digest.hexdigest()[:16] if len(known) > 1 else ""


def shown_settings(names: Iterable[str]) -> str:
    """Return how a message names what a run's record has of its settings."""
    return ", ".join(names).replace(IMAGES, f"set of {IMAGES}")


def split_list(lst: Sequence[Any], n: int) -> list[Sequence[Any]]:
    """Split a list into up to ``n`` parts of equal length, in order; the last part may be shorter."""
    size = max(1, math.ceil(len(lst) / n))
    return [lst[start : start + size] for start in range(0, len(lst), size)]


def get_chunk(lst: Sequence[Any], n: int, k: int) -> Sequence[Any]:
    """Return part ``k`` (from 0) of ``n``; empty where the list has fewer parts."""
    parts = split_list(lst, n)
    return parts[k] if k < len(parts) else []


def image_opener(folder: Path, name: str, where: str = "") -> ImageFile:
    """Return what opens the image ``name`` of a folder; ``where`` names the question in messages.

    Raises ``DataError`` where there is no such file.
    """
    about = f"{where}: " if where else ""
    if not name.strip():
        raise DataError(f"{about}'image' is {name!r}; expected the name of a file in --image-folder {folder}")
    path = folder / name
    try:
        there = path.is_file()
    except OSError:  # a name that is too long for a file
        there = False
    if not there:
        raise DataError(f"{about}there is no image {shown(name)} in --image-folder {folder}")
    return ImageFile(path)


def question_text(text: str, has_image: bool, where: str) -> str:
    """Return a question's text; ``where`` names the question.

    Raises ``DataError`` for a text with an image tag: the tag of its image is added to each question. One
    ``<image-placeholder>`` says where the tag goes.
    """
    placed = text.count(IMAGE_PLACEHOLDER)
    if DEFAULT_IMAGE_TOKEN in text or placed > has_image:
        tag, allowed = (IMAGE_PLACEHOLDER, int(has_image)) if placed > has_image else (DEFAULT_IMAGE_TOKEN, 0)
        raise DataError(
            f"{where}: the text {shown(text)} holds {tag} {text.count(tag)} times, expected {allowed}; a question has "
            f"{'one image, whose tag is added' if has_image else 'no image'}: remove it from the text"
        )
    return text
