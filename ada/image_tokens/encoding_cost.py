"""Lists the products that a front selector adds to, or takes from, the encoding of a row's images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ada.cost.products import (
    ImageEncoding,
    Product,
    class_attention_products,
    diversity_products,
    merging_products,
)
from ada.image_tokens.encoded_images import EncodedImage
from ada.image_tokens.selection import RowTokens


def with_encoding_cost(
    model: Any, rows: Sequence[RowTokens], images: Sequence[Sequence[EncodedImage]], selector: str
) -> list[RowTokens]:
    """Return ``rows`` with what encoding each one's images cost under a front selector; ``images`` are each row's."""
    if not images:
        return list(rows)
    return [replace(row, encoding=_encoding(model, row, own, selector)) for row, own in zip(rows, images, strict=True)]


def _encoding(model: Any, row: RowTokens, images: Sequence[EncodedImage], selector: str) -> ImageEncoding | None:
    if not images:
        return None
    sides, projected = [image.sides for image in images], [image.projected for image in images]
    selection = _selection(model, row, images, selector)
    if None in sides or None in projected:  # not encoded for a selector
        return ImageEncoding(selection=selection)
    all_sides = [side for own in sides for side in own or ()]
    return ImageEncoding(all_sides, sum(count or 0 for count in projected), selection)


def _selection(model: Any, row: RowTokens, images: Sequence[EncodedImage], selector: str) -> list[Product]:
    """List the products of the selection itself; those of ``grid`` and ``salient`` are none, or a few additions."""
    if selector == "divprune":
        return diverse_row_products(model.config, row)
    if row.merged_from is not None or selector in ("prumerge", "prumerge+"):
        width = model.get_vision_tower().config.hidden_size
        merged = [image for image in images if image.merged_from is not None or image.positions is not None]
        merging = [
            product
            for image in merged
            for product in merging_products(width, len(image), image.merged_from or image.total)
        ]
        return [*_class_attention(model, len(merged)), *merging]
    read = [image for image in images if image.class_attention is not None]
    return _class_attention(model, sum(len(image.sides or ()) for image in read))


def diverse_row_products(config: Any, row: RowTokens) -> list[Product]:
    """List the products of each token with each other one of an image, or of all images that share an amount."""
    if row.front == row.all:
        return []
    compared = [n for n, kept in zip(row.all, row.front, strict=True) if row.shared or kept < n]
    if row.shared:
        compared.append(sum(row.all))
    return [product for tokens in compared for product in diversity_products(config, tokens)]


def _class_attention(model: Any, crops: int) -> list[Product]:
    """List the products of the class token's query with the keys of each crop, and of making both."""
    tower = model.get_vision_tower() if crops else None
    if tower is None:
        return []
    return class_attention_products(tower.config.hidden_size, tower.num_patches + 1, crops)
