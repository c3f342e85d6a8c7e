"""Image tokens in a server: the request's fields, checked before it waits, and what the reply says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, StrictInt

from ada.image_token_options import check_auto, check_selector, image_tokens_of
from ada.image_tokens.amount import ALL_IMAGE_TOKENS
from ada.protocols import is_adaptive
from llava.errors import OptionError

NAMES = ("image_tokens", "token_selector")


def request_fields() -> dict[str, tuple[Any, Any]]:
    """Return what a request may have in addition: ``image_tokens`` and ``token_selector``."""
    amount = Field(
        default=None,
        description="how many tokens of each image the decoder reads: 'all', a number, '25%', two of these as "
        "'50%/25%' (those that enter it, and those that its later layers read), or 'auto', as the budget allows",
    )
    selector = Field(
        default=None, max_length=100, description="which image tokens stay, such as 'divprune', or 'salient/fastv'"
    )
    return {"image_tokens": (StrictInt | str | None, amount), "token_selector": (str | None, selector)}


def check_fields(model: Any, fields: Mapping[str, Any], defaults: Mapping[str, Any], budget: object) -> dict[str, Any]:
    """Parse a request's image tokens and selector; return both by name, the worker's own where it names none.

    fields: also ``num_images``, of the request; budget: what it may be granted, None where nothing bounds it. Raises
    OptionError, which names the field, for what is malformed and what this model cannot follow.
    """
    given = {name: fields.get(name) for name in NAMES}
    if all(value is None for value in given.values()):
        return {"image_tokens": image_tokens_of(defaults), "token_selector": defaults.get("token_selector")}
    try:
        amount, selector = image_tokens_of(given), given["token_selector"]
        followed = {name: defaults.get(name) if value is None else value for name, value in given.items()}
        if is_adaptive(model):
            check_auto(amount, budget, fields.get("num_images"))
            check_selector(model, followed)
    except OptionError as error:
        raise OptionError(_of_a_request(str(error))) from None
    if is_adaptive(model):
        return {"image_tokens": image_tokens_of(followed), "token_selector": followed["token_selector"]}
    if selector is not None or amount != ALL_IMAGE_TOKENS:
        raise OptionError(
            "the model of this worker reads all image tokens; leave image_tokens and token_selector out, or start the "
            "worker with --image-tokens all"
        )
    return dict.fromkeys(NAMES)


def _of_a_request(message: str) -> str:
    """Return a message about flags in the names of a request's fields."""
    named = message.replace("--image-tokens", "image_tokens").replace("--latency-budget", "latency_budget")
    return named.replace("the token selector is", "token_selector is")


def kept_share(metadata: Mapping[str, Any]) -> float | None:
    """Return the share of an answer's image tokens that entered the decoder; None without image tokens."""
    counts = metadata["image_tokens"]
    return counts["kept"] / counts["all"] if counts["all"] else None
