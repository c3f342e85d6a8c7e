"""Merges token ids and image features into the decoder's inputs: embeddings, labels, positions and mask.

B rows, t token columns, T positions after the splice, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.errors import CheckpointError, ImageError
from llava.protocols import Images

Embed = Callable[[torch.Tensor], torch.Tensor]
Feature = TypeVar("Feature")


@dataclass(frozen=True)
class SplicedInputs:
    """What enters the decoder. Labels are None where none were given, the mask where nothing is padded."""

    embeds: torch.Tensor  # (B, T, D)
    attention_mask: torch.Tensor  # (B, T), bool
    position_ids: torch.Tensor  # (B, T), 0 under padding
    labels: torch.Tensor | None  # (B, T)


def features_by_row(tags: Sequence[int], features: Sequence[Feature]) -> list[Sequence[Feature]]:
    """Assign images to rows with ``tags`` image tags each: their features, row by row.

    A row without tags may still own one image, as the collator's dummy for a text-only sample: it then gets that
    image, and splices none of it. Raises ImageError where the numbers fit neither way.
    """
    shares = list(tags)
    if len(features) != sum(shares):
        shares = [max(1, count) for count in tags]
    if len(features) != sum(shares):
        raise ImageError(
            f"{sum(tags)} image tag(s) in the prompt, but {len(features)} image(s) given; "
            "there must be one <image> for each image"
        )
    starts = [sum(shares[:row]) for row in range(len(shares))]
    return [features[start : start + share] for start, share in zip(starts, shares, strict=True)]


def images_per_row(input_ids: torch.Tensor, mask: torch.Tensor | None, images: Images | None) -> list[int]:
    """Return how many images, or crops of them, the vision tower sees for each row of ``input_ids`` (B, t).

    images: what ``generate`` takes: (n, 3, S, S), or for each image one (3, S, S) or its crops (c, 3, S, S); or None.
    mask: (B, t), False where a row is padded. One row has all images, whatever a replaced
    ``prepare_inputs_labels_for_multimodal`` makes of them. Raises ImageError where tags and images do not fit.
    """
    if images is None:
        return [0] * len(input_ids)
    crops = [len(image) if image.dim() == 4 else 1 for image in images]
    if len(input_ids) == 1:
        return [sum(crops)]
    tags = input_ids == IMAGE_TOKEN_INDEX
    if mask is not None:
        tags = tags & mask.bool()
    return [sum(own) for own in features_by_row(tags.sum(dim=1).tolist(), crops)]


def splice_row(
    ids: torch.Tensor, labels: torch.Tensor, images: Sequence[torch.Tensor], embed: Embed
) -> tuple[torch.Tensor, torch.Tensor]:
    """Merge one row without padding into embeddings (T, D) and labels (T,).

    ids: (t,); labels: (t,); images: each image's features (n, D), which replace the row's next image tag; their labels
    are ignored. embed: token ids -> embeddings. Raises CheckpointError for features of another width than embeddings.
    """
    tags = (ids == IMAGE_TOKEN_INDEX).nonzero().flatten().tolist()
    if not tags:
        # Nothing of a dummy image is spliced; its empty slice keeps the projector in the graph, on every rank alike.
        dummies = [image[:0].to(ids.device) for image in images]
        return torch.cat([embed(ids), *dummies]), labels
    text = embed(ids[ids != IMAGE_TOKEN_INDEX])
    if widths := {image.shape[-1] for image in images} - {text.shape[-1]}:
        raise CheckpointError(
            f"the image features have width {widths.pop()}, the language model's embeddings {text.shape[-1]}; with "
            "mm_projector_type 'identity' they must be equal"
        )
    parts: list[torch.Tensor] = []
    part_labels: list[torch.Tensor] = []
    start = 0  # after the last tag
    for order, (tag, image) in enumerate(zip(tags, images, strict=True)):
        parts += [text[start - order : tag - order], image.to(text)]
        part_labels += [labels[start:tag], labels.new_full((len(image),), IGNORE_INDEX)]
        start = tag + 1
    parts.append(text[start - len(tags) :])
    part_labels.append(labels[start:])
    return torch.cat(parts), torch.cat(part_labels)


def pad_rows(rows: Sequence[tuple[torch.Tensor, torch.Tensor]], side: str) -> SplicedInputs:
    """Pad rows of embeddings (T_i, D) and labels (T_i,) on ``side``, with zeros and ignored labels."""
    width = max(len(embeds) for embeds, _ in rows)
    first, first_labels = rows[0]
    batch = first.new_zeros(len(rows), width, first.shape[1])
    labels = first_labels.new_full((len(rows), width), IGNORE_INDEX)
    mask = torch.zeros(len(rows), width, dtype=torch.bool, device=first.device)
    positions = torch.zeros(len(rows), width, dtype=torch.long, device=first.device)
    for row, (embeds, row_labels) in enumerate(rows):
        length = len(embeds)
        columns = slice(width - length, width) if side == "left" else slice(0, length)
        batch[row, columns] = embeds
        labels[row, columns] = row_labels
        mask[row, columns] = True
        positions[row, columns] = torch.arange(length, device=first.device)
    return SplicedInputs(batch, mask, positions, labels)


def splice(
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    labels: torch.Tensor | None,
    features: Sequence[torch.Tensor],
    embed: Embed,
    max_length: int | None = None,
    padding_side: str = "right",
) -> SplicedInputs:
    """Merge token ids (B, t) with image tags, and one (n, D) tensor of features per image, into decoder inputs.

    embed: token ids -> embeddings. Rows longer than ``max_length`` are cut at the end.
    """
    real = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
    known = torch.full_like(input_ids, IGNORE_INDEX) if labels is None else labels
    rows_ids = [ids[keep] for ids, keep in zip(input_ids, real, strict=True)]
    tags = [int((ids == IMAGE_TOKEN_INDEX).sum()) for ids in rows_ids]
    rows = [
        splice_row(ids, row_labels[keep], images, embed)
        for ids, row_labels, keep, images in zip(rows_ids, known, real, features_by_row(tags, features), strict=True)
    ]
    if max_length is not None:
        rows = [(embeds[:max_length], row_labels[:max_length]) for embeds, row_labels in rows]
    spliced = pad_rows(rows, padding_side)
    return spliced if labels is not None else replace(spliced, labels=None)


def pad_left(embeds: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Move the padding of (B, T, D) and its mask (B, T) to the left; the mask is None where nothing is padded.

    Generation reads the last column, so each row's last real token must stand there.
    """
    if mask is None or bool(mask.bool().all()):
        return embeds, None
    width = mask.shape[1]
    padding = mask.bool().flip(1).int().argmax(dim=1)  # (B,): columns after the last real token
    source = (torch.arange(width, device=mask.device) - padding[:, None]) % width
    return embeds.gather(1, source[..., None].expand_as(embeds)), mask.gather(1, source)
