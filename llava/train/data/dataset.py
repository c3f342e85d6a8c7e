"""Makes training samples of LLaVA's records: images are opened and texts tokenized when a sample is asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from llava import conversation
from llava.constants import IMAGE_TOKEN_INDEX
from llava.conversation import Conversation
from llava.mm_utils import load_image
from llava.model.multimodal.anyres_grid import GridPinpoints
from llava.model.multimodal.image_pipeline import ImagePipeline, crop_side
from llava.protocols import ImageProcessor, Tokenizer
from llava.train.data.preprocessing import preprocess, preprocess_multimodal
from llava.train.data.records import Record, read_records, sample_name, usable
from llava.train.data.sample_length import ImagePositions, count_labels, ids_within

log = logging.getLogger("llava.train")

IMAGE_WORDS = 128  # length of an image, in words, where samples are grouped by length


@dataclass(frozen=True)
class SampleSettings:
    """How a record becomes a sample, under the names of the flags; without an image processor only texts are read.

    image_grid_pinpoints: with the aspect ratio ``anyres`` or ``anyres_max_N``, what ``grid_resolutions`` reads.
    exif_orientation: whether images are turned upright; else they are read as they are stored.
    """

    image_folder: str | None = None
    image_processor: ImageProcessor | None = None
    image_aspect_ratio: str = "square"
    image_grid_pinpoints: GridPinpoints = None
    mm_use_im_start_end: bool = False
    exif_orientation: bool = False

    @classmethod
    def of(cls, data_args: object) -> SampleSettings:
        """Return the settings that ``data_args`` has as attributes, as upstream's training sets them there."""
        if isinstance(data_args, cls):
            return data_args
        given = {field.name: getattr(data_args, field.name) for field in fields(cls) if hasattr(data_args, field.name)}
        if not getattr(data_args, "is_multimodal", True):
            given["image_processor"] = None
        return cls(**given)

    @property
    def is_multimodal(self) -> bool:
        """Whether the model has a vision tower."""
        return self.image_processor is not None


class LazySupervisedDataset(Dataset[dict[str, Any]]):
    """Samples ``{"input_ids": (T,), "labels": (T,), "image": (3, H, W), "image_size": (width, height)}``.

    data_args: ``SampleSettings``, or upstream's ``DataArguments``; kept as it is, with whatever a script has added, and
    read for each sample. template: by default the one that ``llava.conversation`` has as its default. A text-only
    record of a multimodal model gets a black image that no tag refers to, so that every process of a distributed run
    passes through the vision tower. image_positions: what an image takes of the tokenizer's maximum length, beyond
    which ids and labels are cut off; without it only the text counts here. Raises ``DataError``, naming the record, for
    one that no sample can be made of.
    """

    def __init__(
        self,
        data_path: str,
        tokenizer: Tokenizer,
        data_args: object,
        template: Conversation | None = None,
        image_positions: ImagePositions | None = None,
    ) -> None:
        self.list_data_dict = read_records(data_path)
        self.tokenizer, self.data_args = tokenizer, data_args
        self.template = template or conversation.default_conversation
        self.image_positions = image_positions
        self._has_warned = False

    def __len__(self) -> int:
        return len(self.list_data_dict)

    @property
    def lengths(self) -> list[int]:
        """Approximate lengths of the samples, in words."""
        return [words + (IMAGE_WORDS if "image" in r else 0) for words, r in self._words()]

    @property
    def modality_lengths(self) -> list[int]:
        """Approximate lengths of the samples, in words; negative for records without an image."""
        return [words if "image" in r else -words for words, r in self._words()]

    def _words(self) -> Iterator[tuple[int, Record]]:
        for index, found in enumerate(self.list_data_dict):
            record = usable(found, index)
            yield sum(len(message["value"].split()) for message in record["conversations"]), record

    def __getitem__(self, i: int) -> dict[str, Any]:
        record = usable(self.list_data_dict[i], i)
        source, args = record["conversations"], SampleSettings.of(self.data_args)
        sample: dict[str, Any] = {}
        if "image" in record:
            path = Path(args.image_folder or "") / record["image"]
            image = load_image(str(path), turn_by_exif=args.exif_orientation)
            sample["image"] = ImagePipeline(args.image_processor, args).pixels(image)
            sample["image_size"] = image.size
            (source,) = preprocess_multimodal([source], args, self.template)
        elif args.image_processor is not None:
            side = crop_side(args.image_processor)
            sample["image"] = torch.zeros(3, side, side)
            sample["image_size"] = side, side
        name = sample_name(record, i)
        texts = preprocess([source], self.tokenizer, "image" in record, self.template, name)
        ids, labels = texts["input_ids"][0], texts["labels"][0]
        end = self._end(ids, sample["image_size"] if "image" in record else None)
        self._warn_of_lost_labels(name, labels, end)
        return {"input_ids": ids[:end], "labels": labels[:end], **sample}

    def _end(self, ids: torch.Tensor, image_size: tuple[int, int] | None) -> int:
        """Return how many ids are within the maximum length, which the tokenizer has cut a text without image at."""
        tags = int((ids == IMAGE_TOKEN_INDEX).sum())
        if image_size is None or self.image_positions is None or tags != 1:  # other numbers of tags the model refuses
            return len(ids)
        return ids_within(ids, [self.image_positions(image_size)], self.tokenizer.model_max_length)

    def _warn_of_lost_labels(self, name: str, labels: torch.Tensor, end: int) -> None:
        """Warn of the first record of this process that is cut; the check of the data counts them all."""
        kept, total = count_labels(labels[:end]), count_labels(labels)
        if not self._has_warned and (kept < total or not kept):
            self._has_warned = True
            log.warning(
                "record %s is longer than --model_max_length %d: %d of its answers' %d tokens are trained on. Others "
                "are not reported one by one; --check_data_only True counts them",
                name,
                self.tokenizer.model_max_length,
                kept,
                total,
            )
