"""Reads a request's promise of quality, ``max_disagreement``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, StrictFloat

from ada.protocols import is_adaptive
from ada.quality.disagreement import read_disagreement
from ada.quality.table import promises_of
from llava.errors import OptionError
from llava.protocols import LlavaModel


def request_fields() -> dict[str, tuple[Any, Any]]:
    """Return the field ``max_disagreement``."""
    promise = Field(
        default=None,
        description="promise of quality in place of a budget: at most this share of answers, 0.02 or '2%', differ from "
        "the full model's; a cheap plan answers where it is sure",
    )
    return {"max_disagreement": (StrictFloat | str | None, promise)}


def promise_of(model: LlavaModel, fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> float | None:
    """Return a request's promise, or the worker's; None for a request with a budget.

    fields: the request's; defaults: the worker's flags. Raises OptionError for a promise that the model cannot keep,
    and next to a budget.
    """
    given, budget = fields.get("max_disagreement"), fields.get("latency_budget")
    if given is None:
        return None if budget is not None else defaults.get("max_disagreement")
    if not is_adaptive(model) or budget is not None or fields.get("image_tokens") is not None:
        raise OptionError(
            "max_disagreement was given, which chooses budget and image tokens itself, on a model that takes them; "
            "leave out latency_budget and image_tokens, or max_disagreement"
        )
    promise = read_disagreement(given)
    promises_of(model.config).best(promise)
    return promise
