"""Works out what of a prompt's images an estimate reads: which positions, how they are chosen, and their share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import torch

from ada.cost.products import (
    ImageEncoding,
    LateReading,
    Product,
    class_attention_products,
    fastv_products,
    merging_products,
    scorer_products,
)
from ada.cost.sizes import Sizes
from ada.frontier.share import PrefillShare, PromptTokens
from ada.image_tokens.amount import ALL_IMAGE_TOKENS, ImageTokens
from ada.image_tokens.encoding_cost import diverse_row_products
from ada.image_tokens.late_selectors import fastv_layer
from ada.image_tokens.selection import RowTokens, for_selectors
from ada.image_tokens.selector_names import SelectorNames
from ada.image_tokens.token_scorer import TokenScorer
from llava.errors import OptionError

NEEDS_CLASS_TOKEN = ("cls", "prumerge", "prumerge+")


@dataclass(frozen=True)
class PromptReading:
    """What of a prompt is read.

    prompt: its positions. images: how many tokens each image has and keeps. share: counts what of a full prefill they
    take. encoding, late: as ``prefill_products`` takes them.
    """

    prompt: PromptTokens
    images: RowTokens
    share: PrefillShare
    encoding: ImageEncoding | None = None
    late: LateReading | None = None


def prompt_reading(
    sizes: Sizes,
    prompt_tokens: int,
    images: int,
    amount: ImageTokens = ALL_IMAGE_TOKENS,
    selector: str | None = None,
    late_layer: int | None = None,
) -> PromptReading:
    """Return what is read of a prompt that has ``prompt_tokens`` positions with all tokens of its images.

    selector: as ``generate`` takes it. late_layer: the first layer that reads the late tokens alone; by default
    FastV's, or for a learned scorer the checkpoint's, else P. Raises OptionError for what the model or the prompt does
    not have.
    """
    full = [sizes.image_tokens] * (images if sizes.vision is not None else 0)
    names = SelectorNames.of(selector, SimpleNamespace(config=sizes.config, token_scorer=_scorer_layer(sizes)))
    amount = for_selectors([amount], names)[0]
    first = _first_late_layer(sizes, names.late, amount, late_layer)
    merges = bool(full) and selector is not None and names.front.startswith("prumerge")  # also without an amount
    if amount == ALL_IMAGE_TOKENS and not merges:  # the prompt need not be long enough for its images
        row = RowTokens(tuple(full), tuple(full), tuple(full))
        return PromptReading(PromptTokens.all_of(prompt_tokens), row, PrefillShare.of(sizes.config, sizes.units))
    _check(sizes, prompt_tokens, full, amount, names.front)
    front = amount.front.of_each(full)
    if names.front == "shrink":
        front = [math.isqrt(kept) ** 2 for kept in front]
    late = front if amount.late is None else [min(pair) for pair in zip(amount.late.of_each(full), front, strict=True)]
    row = RowTokens(tuple(full), tuple(front), tuple(late), amount.front.shared)
    prompt = PromptTokens.with_images(prompt_tokens - sum(full), sum(full), sum(front), sum(late))
    encoding = None if amount.front.is_all else _encoding(sizes, row, names.front)
    chosen = (
        None if late == front else LateReading(first, prompt.late, _late_selection(sizes, names.late, prompt.front))
    )
    share = PrefillShare.of(sizes.config, sizes.units, None if chosen is None else first)
    return PromptReading(prompt, row, share, encoding, chosen)


def _scorer_layer(sizes: Sizes) -> int | None:
    layer: int | None = getattr(sizes.config, "token_scorer_layer", None)
    return layer


def _first_late_layer(sizes: Sizes, selector: str, amount: ImageTokens, given: int | None) -> int:
    layers = sizes.units.num_layers
    if given is None:
        scorer_layer = _scorer_layer(sizes) or sizes.units.num_prefix_layers
        return fastv_layer(sizes.config) if selector == "fastv" else scorer_layer
    if not 0 < given < layers:
        raise OptionError(f"--late-layer is {given}; expected 1 to {layers - 1}, a layer after the first one")
    if amount.late is None:
        raise OptionError(
            f"--late-layer is {given}, and --image-tokens leaves nothing out in later layers; give two amounts, such "
            "as 50%/25%, or --token-selector fastv"
        )
    return given


def _check(sizes: Sizes, prompt_tokens: int, full: Sequence[int], amount: ImageTokens, selector: str) -> None:
    """Raise OptionError where the prompt has no such image tokens to leave out, or the selector cannot do it."""
    if amount.auto:
        raise OptionError(
            "--image-tokens is 'auto', which a checkpoint's frontier decides as it answers; for an estimate give a "
            "number of tokens or a percentage, such as 25%"
        )
    if not full:
        raise OptionError(f"--image-tokens is '{amount}', and there is no image: of the model or of --images")
    sizes.check_images(len(full))
    if prompt_tokens <= sum(full):
        raise OptionError(
            f"--prompt-tokens is {prompt_tokens}; {len(full)} images have {sum(full)} positions of it before any is "
            f"left out, so that {sum(full) + 1} or more are expected"
        )
    if selector in NEEDS_CLASS_TOKEN and (sizes.vision is None or sizes.vision.model_type == "siglip_vision_model"):
        raise OptionError(f"--token-selector is {selector!r}, and the vision tower has no class token; choose salient")
    if selector in (*NEEDS_CLASS_TOKEN, "shrink") and sizes.crops_per_image > 1:
        raise OptionError(f"--token-selector is {selector!r}, and the tower reads several scales; choose salient")
    if selector.startswith(("prumerge", "shrink")) and sizes.class_tokens:
        raise OptionError(
            f"--token-selector is {selector!r}, and the decoder also reads the class token (mm_vision_select_feature "
            "'cls_patch'); choose salient"
        )
    if selector.startswith("prumerge") and amount.front.is_all:
        raise OptionError(
            f"--token-selector is {selector!r}, which keeps as many tokens as an image has outliers; for an estimate "
            "give --image-tokens a number or a percentage of tokens that enter the decoder"
        )


def _encoding(sizes: Sizes, row: RowTokens, selector: str) -> ImageEncoding | None:
    """Return what a front selector makes of the encoding of images that leave some tokens out."""
    if selector == "divprune":
        return ImageEncoding(selection=diverse_row_products(sizes.config, row))
    if sizes.vision is None or selector not in (*NEEDS_CLASS_TOKEN, "shrink"):
        return None
    side, width = sizes.vision.image_size // sizes.vision.patch_size, sizes.vision.hidden_size
    if selector == "shrink":
        return ImageEncoding([math.isqrt(kept) for kept in row.front], sum(row.front))
    attention = class_attention_products(width, side**2 + 1, len(row.all))
    if selector == "cls":
        return ImageEncoding(selection=attention)
    merging = [merging_products(width, kept, n) for n, kept in zip(row.all, row.front, strict=True)]
    return ImageEncoding(projected=sum(row.front), selection=[*attention, *(own for one in merging for own in one)])


def _late_selection(sizes: Sizes, selector: str, positions: int) -> list[Product]:
    if selector == "fastv":
        return fastv_products(sizes.config, positions)
    with torch.device("meta"):
        return scorer_products(sizes.config, TokenScorer(sizes.config.hidden_size), positions)
