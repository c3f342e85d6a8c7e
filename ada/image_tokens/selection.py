"""Selects, in an embedded batch, the image tokens that the decoder reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ada.cost.products import ImageEncoding
from ada.image_tokens.amount import ALL, ImageTokens, shared_counts
from ada.image_tokens.encoded_images import images_of, with_gaps
from ada.image_tokens.kept import with_kept_tokens
from ada.image_tokens.selector_names import SelectorNames
from ada.image_tokens.selectors import Candidates, selector_named
from ada.image_tokens.shared_selection import select_shared
from llava.errors import OptionError
from llava.model.multimodal.embedded_batch import EmbeddedBatch


@dataclass(frozen=True)
class RowTokens:
    """How many tokens of each of a row's images there are, enter the decoder, and are read by its later layers.

    All are empty where it is not known where the row's image tokens are. shared: the images compete for ``front``, of
    which only the sum is settled before the selection; late_shared: so they do for ``late``. widths: positions that
    each image takes in the prompt, where they are not ``all``. encoding: what the front selector makes of the cost of
    encoding; None where that is as ever. merged_from: image patches that a checkpoint trained on merged tokens has
    merged into ``all``, which its budgets are shares of, as published; None for others.
    """

    all: tuple[int, ...] = ()
    front: tuple[int, ...] = ()
    late: tuple[int, ...] = ()
    shared: bool = False
    late_shared: bool = False
    widths: tuple[int, ...] = ()
    encoding: ImageEncoding | None = None
    merged_from: int | None = None

    def to_json(self) -> dict[str, int]:
        """Return the sums over the row's images: ``all``, ``kept`` (those that enter) and ``late``."""
        return {"all": self.merged_from or sum(self.all), "kept": sum(self.front), "late": sum(self.late)}

    def summary(self) -> str:
        """Return a few words for people."""
        late = "" if self.late == self.front else f", {sum(self.late)} in later layers"
        return f"image tokens {sum(self.front)}/{self.merged_from or sum(self.all)}{late}"


NO_IMAGE_TOKENS = RowTokens()


def row_tokens(batch: EmbeddedBatch, amounts: Sequence[ImageTokens]) -> list[RowTokens]:
    """Return what stays of each row's images under its amount, which must not be ``auto``."""
    if batch.image_spans is None:
        return [NO_IMAGE_TOKENS] * len(amounts)
    rows = []
    for spans, images, amount in zip(batch.image_spans, images_of(batch), amounts, strict=True):
        few = any(image.positions is not None for image in images)  # as they were encoded
        entering = tuple(len(span) for span in spans)
        lengths = tuple(image.total for image in images) if few else entering
        front = entering if few else tuple(amount.front.of_each(lengths))
        late = front
        if amount.late is not None:
            late = tuple(min(pair) for pair in zip(amount.late.of_each(lengths), front, strict=True))
        merged = sum(image.merged_from or 0 for image in images) or None
        late_shared = amount.late is not None and amount.late.shared
        widths = tuple(image.width for image in images) if few else ()
        shared = amount.front.shared and not few
        rows.append(RowTokens(lengths, front, late, shared, late_shared, widths, merged_from=merged))
    return rows


def as_selected(batch: EmbeddedBatch, rows: list[RowTokens]) -> list[RowTokens]:
    """Return ``rows`` with what each image has in ``batch``, after the selection over images that share an amount."""
    if batch.image_spans is None:
        return rows
    settled = []
    for row, spans in zip(rows, batch.image_spans, strict=True):
        front = tuple(len(span) for span in spans)
        if row.late == row.front:
            late = front
        elif row.late_shared:
            late = tuple(shared_counts(sum(row.late), front))
        else:
            late = tuple(min(pair) for pair in zip(row.late, front, strict=True))
        settled.append(replace(row, front=front, late=late) if row.shared else row)
    return settled


def for_selectors(amounts: Sequence[ImageTokens], names: SelectorNames) -> Sequence[ImageTokens]:
    """Return the amounts as the selectors are to use them: those of a late selector alone are of later layers."""
    if not names.late_alone:
        return amounts
    return [amount if amount.late or amount.auto else ImageTokens(ALL, amount.front) for amount in amounts]


def with_selected_tokens(
    batch: EmbeddedBatch, rows: Sequence[RowTokens], selector: str, padding_side: str = "left"
) -> EmbeddedBatch:
    """Return the batch with as many tokens of each image as ``rows`` say, chosen by the selector of that name.

    A batch of which all stays is returned as it is.
    """
    batch, kept = with_gaps(batch), []
    if batch.image_spans is None or all(row.front == row.all for row in rows):
        return batch
    for embeds, spans, images, row in zip(batch.embeds, batch.image_spans, images_of(batch), rows, strict=True):
        candidates = [
            Candidates(
                embeds[span.start : span.end].detach(),
                image.cells[: len(span)].to(embeds.device),
                None if image.class_attention is None else image.class_attention[: len(span)].to(embeds.device),
            )
            for span, image in zip(spans, images, strict=True)
        ]
        kept.append(_selected(candidates, row, selector))
    return with_kept_tokens(batch, kept, padding_side)


def check_columns_known(batch: EmbeddedBatch, amounts: Sequence[ImageTokens]) -> None:
    """Raise OptionError where tokens are to be left out and it is not known where those of images are."""
    if batch.image_spans is None and any(amount != ImageTokens() for amount in amounts):
        raise OptionError(
            "image tokens cannot be left out here: their columns in the prompt are not known; leave --image-tokens out"
        )


def _selected(images: Sequence[Candidates], row: RowTokens, selector: str) -> list[torch.Tensor]:
    """Return the indices (k_i,) of the tokens of a row's images that stay."""
    if row.shared and sum(row.front) < sum(row.all):
        return select_shared(images, sum(row.front), selector)
    choose = selector_named(selector)
    return [
        torch.arange(keep, device=image.features.device) if keep == len(image) else choose(image, keep)
        for image, keep in zip(images, row.front, strict=True)
    ]
