"""Samples of different lengths -> one batch, padded on the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from llava.constants import IGNORE_INDEX


@dataclass
class DataCollatorForSupervisedDataset:
    """``{"input_ids", "labels", "attention_mask": (B, T), "images": (B, 3, H, W)}``, cut at the model's length."""

    tokenizer: Any

    def __call__(self, instances: Sequence[dict[str, torch.Tensor]]) -> dict[str, Any]:
        limit = self.tokenizer.model_max_length
        ids = [instance["input_ids"][:limit] for instance in instances]
        labels = [instance["labels"][:limit] for instance in instances]
        # By length, not by token id: a padding token that a text holds is not padding.
        mask = [torch.ones(len(x), dtype=torch.bool) for x in ids]
        batch: dict[str, Any] = {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self.tokenizer.pad_token_id),
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORE_INDEX),
            "attention_mask": pad_sequence(mask, batch_first=True, padding_value=False),
        }
        if "image" in instances[0]:
            images = [instance["image"] for instance in instances]
            alike = all(image.shape == images[0].shape for image in images)
            batch["images"] = torch.stack(images) if alike else images
            if any(image.dim() == 4 for image in images):  # crops: where they lie follows from the picture's size
                batch["image_sizes"] = [instance["image_size"] for instance in instances]
        return batch
