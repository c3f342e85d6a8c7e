"""Holds a batch as it enters the decoder: embeddings of text and images, masks, positions, labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from llava.model.multimodal.image_spans import Spans
from llava.model.multimodal.merge_inputs import pad_left


@dataclass(frozen=True)
class EmbeddedBatch:
    """``B`` rows of ``T`` positions, image tokens included. Tensors are None where nothing is padded or labelled.

    ``num_images``: how many images, crops counted, the vision tower saw for each row; ``image_spans``: where each row's
    image tokens stand. None where that is not known.
    """

    embeds: torch.Tensor  # (B, T, D)
    attention_mask: torch.Tensor | None = None  # (B, T)
    position_ids: torch.Tensor | None = None  # (B, T)
    labels: torch.Tensor | None = None  # (B, T)
    num_images: Sequence[int] | None = None  # B
    image_spans: Spans | None = None  # B

    @property
    def width(self) -> int:
        """``T``: positions of a row, padding included."""
        return self.embeds.shape[1]

    @property
    def images_per_row(self) -> Sequence[int]:
        """``num_images``, or a 0 for each row."""
        return [0] * len(self.embeds) if self.num_images is None else self.num_images

    def inputs(self) -> dict[str, torch.Tensor | None]:
        """Return the keyword arguments of the decoder's forward."""
        return {
            "inputs_embeds": self.embeds,
            "attention_mask": self.attention_mask,
            "position_ids": self.position_ids,
            "labels": self.labels,
        }

    def padded_left(self) -> EmbeddedBatch:
        """Return the prompt with its padding moved to the left, as generation reads the last column.

        Labels are dropped. Positions are kept where the batch states them: there may be gaps.
        """
        embeds, mask = pad_left(self.embeds, self.attention_mask)
        positions, spans = self.position_ids, self.image_spans
        if self.attention_mask is not None and mask is not None:
            if positions is not None:
                positions = pad_left(positions[..., None], self.attention_mask)[0][..., 0]
            if spans is not None:
                before = (self.attention_mask.bool().int().argmax(dim=1), mask.bool().int().argmax(dim=1))
                moves = (before[1] - before[0]).tolist()
                spans = [[span.moved(move) for span in row] for row, move in zip(spans, moves, strict=True)]
        return replace(self, embeds=embeds, attention_mask=mask, position_ids=positions, labels=None, image_spans=spans)
