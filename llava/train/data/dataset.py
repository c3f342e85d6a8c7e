"""LLaVA's training records, read once; pictures are opened and texts tokenized when a sample is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from llava.conversation import Conversation
from llava.errors import DataError
from llava.mm_utils import load_image
from llava.model.multimodal.image_pipeline import ImagePipeline
from llava.train.data.preprocessing import preprocess, preprocess_multimodal

Record = dict[str, Any]

IMAGE_WORDS = 128  # what a picture counts for when samples are grouped by length


def read_records(path: str) -> list[Record]:
    """The records of a training file. Raises ``DataError`` where it is missing, not JSON, or not a list."""
    try:
        records = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"--data_path {path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # not JSON, or not text at all
        raise DataError(f"--data_path {path} is not JSON: {error}") from error
    if not isinstance(records, list) or not records:
        raise DataError(f"--data_path {path} holds no records; expected a JSON list of conversations")
    return records


def sample_name(record: Any, index: int) -> str:
    """How messages name a record: its place in the file, and its id where it has one."""
    known = isinstance(record, dict) and "id" in record
    return f"{index} (id {record['id']!r})" if known else str(index)


class LazySupervisedDataset(Dataset):
    """Samples ``{"input_ids": (T,), "labels": (T,), "image": (3, H, W), "image_size": (width, height)}``.

    ``data_args`` carries ``image_folder``, ``image_processor``, ``image_aspect_ratio``, ``is_multimodal`` and
    ``mm_use_im_start_end``. A text-only record of a multimodal model gets a black picture that no tag refers to, so
    that every process of a distributed run passes through the vision tower.
    """

    def __init__(self, data_path: str, tokenizer: Any, data_args: Any, template: Conversation) -> None:
        self.list_data_dict = read_records(data_path)
        self.tokenizer, self.data_args, self.template = tokenizer, data_args, template

    def __len__(self) -> int:
        return len(self.list_data_dict)

    @property
    def lengths(self) -> list[int]:
        """Rough lengths in words."""
        return [_words(r) + (IMAGE_WORDS if "image" in r else 0) for r in self.list_data_dict]

    @property
    def modality_lengths(self) -> list[int]:
        """Rough lengths in words, negative for records without a picture."""
        return [_words(r) if "image" in r else -_words(r) for r in self.list_data_dict]

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.list_data_dict[index]
        source, args = record["conversations"], self.data_args
        sample: dict[str, Any] = {}
        if "image" in record:
            image = load_image(str(Path(args.image_folder or "") / record["image"]))
            sample["image"] = ImagePipeline(args.image_processor, args).pixels(image)
            sample["image_size"] = image.size
            (source,) = preprocess_multimodal([source], args, self.template)
        elif args.is_multimodal:
            crop = args.image_processor.crop_size
            sample["image"] = torch.zeros(3, crop["height"], crop["width"])
            sample["image_size"] = crop["width"], crop["height"]
        texts = preprocess([source], self.tokenizer, "image" in record, self.template, sample_name(record, index))
        return {"input_ids": texts["input_ids"][0], "labels": texts["labels"][0], **sample}


def _words(record: Record) -> int:
    return sum(len(message["value"].split()) for message in record["conversations"])
