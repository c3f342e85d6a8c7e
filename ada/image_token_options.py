"""Turns ``--image-tokens`` and ``--token-selector``, or a request's fields, into what ``generate`` takes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ada.image_tokens.amount import ALL_IMAGE_TOKENS, ImageTokens
from ada.image_tokens.selector_names import LATE_SELECTORS, SHRINK, SelectorNames, check_selector_name
from ada.image_tokens.selectors import SELECTORS
from llava.errors import OptionError

AMOUNT_HELP = (
    "how many tokens of each image the decoder reads: all; a number such as 144, or a percentage such as 25%%; two of "
    "these, as 50%%/25%%, for those that enter it and, of all, those that its later layers read; 144 shared, for all "
    "images of a prompt; or auto, as the latency budget allows. By default auto under a budget where the model was "
    "trained for it, else all"
)
SELECTOR_HELP = (
    f"which image tokens stay, chosen before the decoder ({', '.join(SELECTORS)}), as a later layer is entered "
    f"({', '.join(LATE_SELECTORS)}), or one of each, as salient/fastv; by default the model's own, else salient and "
    "fastv"
)


def image_tokens_flag(text: str) -> ImageTokens:
    """Read the flag ``--image-tokens``, as argparse's ``type``."""
    try:
        return ImageTokens.parse(text)
    except OptionError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("--image-tokens is ")) from None


def token_selector_flag(text: str) -> str:
    """Read the flag ``--token-selector``, as argparse's ``type``."""
    try:
        return check_selector_name(text)
    except OptionError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("the token selector is ")) from None


def add_image_token_flags(
    group: argparse._ArgumentGroup,
    read_amount: Callable[[str], object] = image_tokens_flag,
    read_selector: Callable[[str], object] = token_selector_flag,
) -> None:
    """Add ``--image-tokens`` and ``--token-selector``, whose texts the two functions turn into values."""
    group.add_argument("--image-tokens", type=read_amount, metavar="VALUE", help=AMOUNT_HELP)
    group.add_argument("--token-selector", type=read_selector, metavar="NAME", help=SELECTOR_HELP)


def image_tokens_of(options: Mapping[str, Any]) -> ImageTokens | None:
    """Return the options' ``image_tokens``, None where they name none, so that the model decides.

    With the token selector shrink they name all: a budget is shared out too late for it. Raises OptionError for what is
    no amount.
    """
    value = options.get("image_tokens")
    if value is None:
        front = str(options.get("token_selector")).partition("/")[0]
        return ALL_IMAGE_TOKENS if front.strip() == SHRINK else None
    return ImageTokens.parse(value)


def reads_fewer(options: Mapping[str, Any]) -> bool:
    """Return whether the options ask for less than all image tokens."""
    return image_tokens_of(options) not in (None, ALL_IMAGE_TOKENS)


def names_tokens(options: Mapping[str, Any]) -> bool:
    """Return whether the options name an amount of image tokens, or a selector."""
    return image_tokens_of(options) is not None or options.get("token_selector") is not None


def check_selector(model: Any, options: Mapping[str, Any]) -> None:
    """Raise OptionError for a selector that the adaptive ``model`` cannot run, and for tokens that it cannot leave out.

    What depends on an image, ``generate`` checks.
    """
    # These take seconds, of which servers' clients are spared.
    from ada.image_tokens.encoding import ENCODERS, check_before_budget, cuts_front
    from ada.image_tokens.late_selectors import late_selector
    from ada.image_tokens.selection import for_selectors

    names = SelectorNames.of(options.get("token_selector"), model)
    late_selector(names.late, model, torch.zeros(1, dtype=torch.long))
    amount = image_tokens_of(options)
    used = for_selectors([ALL_IMAGE_TOKENS if amount is None else amount], names)
    if not names.late_alone or cuts_front(used[0]):
        check_before_budget(names.front, used)
        if names.front in ENCODERS and model.get_vision_tower() is not None:
            ENCODERS[names.front](model, names.front, [], [])
    if model.merges_image_tokens and reads_fewer(options):
        raise OptionError(
            f"--image-tokens is {str(amount)!r}, and this checkpoint was trained on merged image tokens "
            f"({model.config.token_selecting}), of which none can be left out; leave --image-tokens out"
        )


def check_auto(image_tokens: ImageTokens | None, budget: object, num_images: int | None = None) -> None:
    """Raise OptionError for ``auto`` without a budget, or without an image to leave tokens out of.

    num_images: None where it is not known yet.
    """
    if image_tokens is None or not image_tokens.auto:
        return
    if budget is None:
        raise OptionError(
            "--image-tokens is 'auto', and there is no latency budget for it to go by; give --latency-budget 0.5 too, "
            "or a number of tokens or a percentage such as 25%"
        )
    if num_images == 0:
        raise OptionError("--image-tokens is 'auto', and there is no image; add one, or leave --image-tokens out")
