"""Collates samples of different lengths into one batch, padded on the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from llava.constants import IGNORE_INDEX
from llava.protocols import Tokenizer


@dataclass
class DataCollatorForSupervisedDataset:
    """Makes batches ``{"input_ids", "labels", "attention_mask": (B, T), "images": (B, 3, H, W)}``.

    Sequences are cut at the tokenizer's maximum length. Images of unequal shapes are a list; under ``anyres``, where
    an image is (n, 3, H, W), the batch has ``image_sizes`` [(width, height)], too.
    """

    tokenizer: Tokenizer

    def __call__(self, instances: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the batch of some samples of ``LazySupervisedDataset``."""
        limit = self.tokenizer.model_max_length
        ids = [instance["input_ids"][:limit] for instance in instances]
        labels = [instance["labels"][:limit] for instance in instances]
        # By length, not by token id: a text may hold the padding token.
        mask = [torch.ones(len(x), dtype=torch.bool) for x in ids]
        batch: dict[str, Any] = {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self.tokenizer.pad_token_id or 0),
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORE_INDEX),
            "attention_mask": pad_sequence(mask, batch_first=True, padding_value=False),
        }
        if "image" in instances[0]:
            images = [instance["image"] for instance in instances]
            same_shape = all(image.shape == images[0].shape for image in images)
            batch["images"] = torch.stack(images) if same_shape else images
            # Of tiles, whose grid follows from the image's size; a script's own data set may not give it.
            if any(image.dim() == 4 for image in images) and all("image_size" in instance for instance in instances):
                batch["image_sizes"] = [instance["image_size"] for instance in instances]
        return batch
