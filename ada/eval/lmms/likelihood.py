"""Computes how likely an answer is, for tasks that compare given answers instead of asking for one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

import torch
from PIL import Image
from torch.nn.functional import cross_entropy

from ada.eval.lmms.task_answers import prompt_of
from ada.protocols import is_adaptive
from llava.constants import IGNORE_INDEX
from llava.errors import DataError, OptionError
from llava.eval.answering.batched_generation import Answerer
from llava.protocols import LlavaModel


@torch.inference_mode()
def answer_loss(
    answerer: Answerer,
    context: str,
    answer: str,
    images: Sequence[Image.Image],
    keywords: Mapping[str, Any],
    title: str,
) -> tuple[float, bool]:
    """Return the mean loss of an answer's tokens, and whether greedy decoding would give that answer.

    The answer's end counts, as in training. The plan is the one that ``generate`` makes for the question: the latency
    token comes before the answer. keywords: the plug-ins', as for ``generate``. title: of the question, for messages.
    Raises ``DataError`` for an empty answer and ``OptionError`` for a strict budget that is not met.
    """
    model: Any = answerer.model  # called, not only asked to generate
    if not answer.strip():
        raise DataError(f"{title} has an empty answer, which has no likelihood")
    question, full = (
        answerer.ids(prompt_of(answerer, context, len(images), title, given)) for given in (None, answer.strip())
    )
    known = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(question, full, strict=False)))
    ids = torch.tensor([full], device=model.device)
    labels = ids.clone()
    labels[:, :known] = IGNORE_INDEX
    sizes = [image.size for image in images] or None
    output = model(
        ids,
        labels=labels,
        images=answerer.pixels(images, [full]),
        image_sizes=sizes,
        **_forward_keywords(model, keywords),
    )
    if keywords.get("strict_latency_budget") and not output.report.budget_met:
        raise OptionError(f"--latency-budget is below what this model can reach: {output.report.summary()}")
    expected = ids[0, known:]
    logits = output.logits[0, -len(expected) - 1 : -1].float()  # (answer's tokens, vocabulary)
    return cross_entropy(logits, expected).item(), bool((logits.argmax(dim=-1) == expected).all())


def _forward_keywords(model: LlavaModel, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return an adaptive model's budget, planner and TTFT predictor; without a budget all layers run."""
    if not is_adaptive(model):
        return {}
    budget = keywords.get("latency_budget")
    return {
        "latency_budget": 1.0 if budget is None else budget,
        "planner": keywords.get("planner"),
        "ttft_predictor": keywords.get("ttft_predictor"),
    }
