"""Reads a request's promise of quality, ``max_disagreement``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, StrictFloat

from ada.protocols import is_adaptive
from ada.quality.cascade import check_planner
from ada.quality.disagreement import read_disagreement
from ada.quality.table import promises_of
from ada.serve.image_token_fields import NAMES
from llava.errors import OptionError
from llava.protocols import LlavaModel
from llava.serve.protocol.schemas import is_sampled


def request_fields() -> dict[str, tuple[Any, Any]]:
    """Return the field ``max_disagreement``."""
    promise = Field(
        default=None,
        description="promise of quality in place of a budget: at most this share of answers, 0.02 or '2%', differ from "
        "the full model's; a cheap plan answers where it is sure. For greedy answers: with temperature 0",
    )
    return {"max_disagreement": (StrictFloat | str | None, promise)}


def promise_of(model: LlavaModel, fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> float | None:
    """Return a request's promise, or the worker's; None for a request with a budget.

    fields: the request's; defaults: the worker's flags, whose promise is for greedy requests that choose neither budget
    nor image tokens. Raises OptionError for a promise that the model cannot keep, next to what it chooses itself, and
    where tokens are drawn.
    """
    given = fields.get("max_disagreement")
    chosen = any(fields.get(name) is not None for name in ("latency_budget", *NAMES))
    sampled = is_sampled(fields.get("temperature", 0.0), fields.get("top_p", 1.0))
    if given is None:
        return None if chosen or sampled else defaults.get("max_disagreement")
    if not is_adaptive(model) or chosen:
        raise OptionError(
            "max_disagreement was given, which chooses budget and image tokens itself, on a model that takes them; "
            "leave out latency_budget, image_tokens and token_selector, or max_disagreement"
        )
    if sampled:
        raise OptionError(
            "max_disagreement was given, which is a promise for greedy answers, and tokens are drawn at this "
            "temperature; give temperature 0, or leave out max_disagreement"
        )
    check_planner(model.config, defaults.get("planner"))
    promise = read_disagreement(given)
    promises_of(model.config).best(promise)
    return promise
