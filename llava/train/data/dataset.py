"""Makes training samples of LLaVA's records: images are opened and texts tokenized when a sample is asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from llava.conversation import Conversation
from llava.errors import DataError
from llava.mm_utils import load_image
from llava.model.multimodal.image_pipeline import ImagePipeline
from llava.protocols import ImageProcessor, Tokenizer
from llava.train.data.preprocessing import preprocess, preprocess_multimodal

Record = dict[str, Any]

IMAGE_WORDS = 128  # length of an image, in words, where samples are grouped by length


@dataclass(frozen=True)
class SampleSettings:
    """How a record becomes a sample, under the names of the flags; without an image processor only texts are read.

    image_grid_pinpoints: with the aspect ratio ``anyres``, sizes [width, height] in pixels. exif_orientation: whether
    images are turned upright; else they are read as they are stored.
    """

    image_folder: str | None = None
    image_processor: ImageProcessor | None = None
    image_aspect_ratio: str = "square"
    image_grid_pinpoints: Sequence[Sequence[int]] | None = None
    mm_use_im_start_end: bool = False
    exif_orientation: bool = False

    @property
    def is_multimodal(self) -> bool:
        """Whether the model has a vision tower."""
        return self.image_processor is not None


def read_records(path: str) -> list[Record]:
    """Read the records of a training file. Raises ``DataError`` where it is missing, not JSON, or not a list."""
    try:
        records = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"--data_path {path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # not JSON, or not text at all
        raise DataError(f"--data_path {path} is not JSON: {error}") from error
    if not isinstance(records, list) or not records:
        raise DataError(f"--data_path {path} holds no records; expected a JSON list of conversations")
    return records


def sample_name(record: object, index: int) -> str:
    """Return how messages name a record: its index in the file, and its id where it has one."""
    if isinstance(record, dict) and "id" in record:
        return f"{index} (id {record['id']!r})"
    return str(index)


class LazySupervisedDataset(Dataset[dict[str, Any]]):
    """Samples ``{"input_ids": (T,), "labels": (T,), "image": (3, H, W), "image_size": (width, height)}``.

    A text-only record of a multimodal model gets a black image that no tag refers to, so that every process of a
    distributed run passes through the vision tower.
    """

    def __init__(self, data_path: str, tokenizer: Tokenizer, data_args: SampleSettings, template: Conversation) -> None:
        self.list_data_dict = read_records(data_path)
        self.tokenizer, self.data_args, self.template = tokenizer, data_args, template

    def __len__(self) -> int:
        return len(self.list_data_dict)

    @property
    def lengths(self) -> list[int]:
        """Approximate lengths of the samples, in words."""
        return [_words(r) + (IMAGE_WORDS if "image" in r else 0) for r in self.list_data_dict]

    @property
    def modality_lengths(self) -> list[int]:
        """Approximate lengths of the samples, in words; negative for records without an image."""
        return [_words(r) if "image" in r else -_words(r) for r in self.list_data_dict]

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.list_data_dict[index]
        source, args = record["conversations"], self.data_args
        sample: dict[str, Any] = {}
        if "image" in record:
            turn = getattr(args, "exif_orientation", False)  # upstream's arguments have none
            image = load_image(str(Path(args.image_folder or "") / record["image"]), turn_by_exif=turn)
            sample["image"] = ImagePipeline(args.image_processor, args).pixels(image)
            sample["image_size"] = image.size
            (source,) = preprocess_multimodal([source], args, self.template)
        elif args.image_processor is not None:
            crop = args.image_processor.crop_size
            sample["image"] = torch.zeros(3, crop["height"], crop["width"])
            sample["image_size"] = crop["width"], crop["height"]
        texts = preprocess([source], self.tokenizer, "image" in record, self.template, sample_name(record, index))
        return {"input_ids": texts["input_ids"][0], "labels": texts["labels"][0], **sample}


def _words(record: Record) -> int:
    return sum(len(message["value"].split()) for message in record["conversations"])
