"""Counts what ``--model_max_length`` leaves of the records' answers, before anything is trained."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from llava.conversation import Conversation
from llava.errors import DataError, OptionError
from llava.files.image_modes import orientation_of
from llava.model.checkpoint.weights_io import listed
from llava.protocols import Tokenizer
from llava.train.data.preprocessing import preprocess, preprocess_multimodal
from llava.train.data.records import Record
from llava.train.data.sample_length import ImagePositions, count_labels, ids_within, starts_of
from llava.train.data.token_estimate import TokenEstimate

log = logging.getLogger("llava.train")

FIRST_ON_ITS_SIDE = 5  # of EXIF's eight orientations: from here on width and height are exchanged


@dataclass(frozen=True)
class ImageTags:
    """How image tags are worded, as ``ImageTagSettings`` says."""

    is_multimodal: bool
    mm_use_im_start_end: bool = False


@dataclass
class LengthCheck:
    """The records of a file that are longer than ``limit`` positions, and what of their answers is trained on.

    tokenizer: one that cuts nothing itself. image_positions: None for a model without a vision tower. needs_sizes:
    whether they depend on an image's size, which is then read from the image's header.
    """

    tokenizer: Tokenizer
    template: Conversation
    limit: int
    tags: ImageTags
    image_positions: ImagePositions | None
    needs_sizes: bool = False
    exif_orientation: bool = False  # whether images are turned upright
    checked: int = 0
    longest: int = 0  # positions of the longest record
    kept: int = 0  # trained tokens of the cut records within the limit
    lost: int = 0  # and beyond it
    cut: list[str] = field(default_factory=list)  # names of the records that lose trained tokens
    emptied: list[str] = field(default_factory=list)  # of these, those that keep none

    def __post_init__(self) -> None:
        self._estimate = TokenEstimate(self.tokenizer, self.template)

    def add(self, record: Record, name: str, image_folder: str | None) -> None:
        """Count one record.

        Raises ``DataError`` where the template cannot express it, and ``OptionError`` for an image without a tower.
        """
        if "image" in record and not self.tags.is_multimodal:
            raise OptionError(
                f"record {name} has an image, and the model no vision tower: its config.json names none, and "
                "--vision_tower is not given; name one"
            )
        self.checked += 1
        images = self._images(record, image_folder)
        texts = [message["value"] for message in record["conversations"]]
        if self._estimate.fits(texts, self.limit - sum(images)):  # as most of a large file's records do
            return
        (source,) = preprocess_multimodal([record["conversations"]], self.tags, self.template)
        sample = preprocess([source], self.tokenizer, "image" in record, self.template, name)
        ids, labels = sample["input_ids"][0], sample["labels"][0]
        self.longest = max(self.longest, int(starts_of(ids, images)[-1]))
        kept, total = count_labels(labels[: ids_within(ids, images, self.limit)]), count_labels(labels)
        if kept < total:
            self.cut.append(name)
            self.kept, self.lost = self.kept + kept, self.lost + total - kept
            if not kept:
                self.emptied.append(name)

    def report(self) -> None:
        """Warn of the records that lose trained tokens. Raises ``DataError`` where no record keeps any."""
        if not self.cut:
            return
        limit = f"--model_max_length {self.limit}"
        remedy = f"--model_max_length {self.longest} holds the longest record"
        if len(self.emptied) == self.checked:
            raise DataError(
                f"nothing would be trained: all {self.checked} records have their answers beyond {limit}, image "
                f"positions counted; {remedy}"
            )
        log.warning(
            "%d of %d records are longer than %s, image positions counted: %d of their answers' %d tokens are cut off "
            "(record %s). %s; %s",
            len(self.cut),
            self.checked,
            limit,
            self.lost,
            self.lost + self.kept,
            listed(self.cut),
            f"Nothing is trained of {len(self.emptied)} (record {listed(self.emptied)})"
            if self.emptied
            else "Each keeps some",
            remedy,
        )

    def _images(self, record: Record, image_folder: str | None) -> list[int]:
        if "image" not in record or self.image_positions is None:
            return []
        size = (1, 1)
        if self.needs_sizes:
            size = self._size(Path(image_folder or "") / record["image"])
        return [self.image_positions(size)]

    def _size(self, path: Path) -> tuple[int, int]:
        """Return (width, height) as training sees them, by the file's header."""
        with Image.open(path) as image:
            on_its_side = self.exif_orientation and orientation_of(image) >= FIRST_ON_ITS_SIDE
            return (image.height, image.width) if on_its_side else image.size
