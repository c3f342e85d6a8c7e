"""How likely an answer is: for tasks that compare given answers instead of asking for one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

import torch
from PIL import Image
from torch.nn.functional import cross_entropy

from ada.eval.lmms.asking import prompt_of
from ada.protocols import is_adaptive
from llava.constants import IGNORE_INDEX
from llava.errors import DataError, OptionError
from llava.eval.answering.batched_generation import Answerer


@torch.inference_mode()
def answer_loss(
    answerer: Answerer,
    context: str,
    answer: str,
    pictures: Sequence[Image.Image],
    keywords: Mapping[str, Any],
    place: str,
) -> tuple[float, bool]:
    """The mean loss of an answer's tokens, its end included as in training, and whether the model would give it of its
    own.

    The plan is the one that ``generate`` makes for the question: the latency token stands in front of the answer.
    keywords: the plug-ins', as for ``generate``. Raises ``OptionError`` for a strict budget that is not met.
    """
    model = answerer.model
    if not answer.strip():
        raise DataError(f"{place} has an empty answer; there is nothing whose likelihood could be told")
    before, whole = (
        answerer.ids(prompt_of(answerer, context, len(pictures), place, given)) for given in (None, answer.strip())
    )
    known = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, whole, strict=False)))
    ids = torch.tensor([whole], device=model.device)
    labels = ids.clone()
    labels[:, :known] = IGNORE_INDEX
    sizes = [picture.size for picture in pictures] or None
    output = model(
        ids, labels=labels, images=answerer.pixels(pictures), image_sizes=sizes, **_forward_keywords(model, keywords)
    )
    if keywords.get("strict_latency_budget") and not output.report.budget_met:
        raise OptionError(f"--latency-budget is below what this model can reach: {output.report.summary()}")
    expected = ids[0, known:]
    logits = output.logits[0, -len(expected) - 1 : -1].float()  # (answer's tokens, vocabulary)
    return cross_entropy(logits, expected).item(), bool((logits.argmax(dim=-1) == expected).all())


def _forward_keywords(model: Any, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """An adaptive model's budget and planner; without a budget the whole model, as in ``generate``."""
    if not is_adaptive(model):
        return {}
    budget = keywords.get("latency_budget")
    return {"latency_budget": 1.0 if budget is None else budget, "planner": keywords.get("planner")}
