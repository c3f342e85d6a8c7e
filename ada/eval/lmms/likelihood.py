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
from llava.errors import DataError
from llava.eval.answering.batched_generation import Answerer
from llava.model.multimodal.embedded_batch import EmbeddedBatch
from llava.model.sequence_length import check_prompt_length, prompt_length


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
    Raises ``DataError`` for an empty answer and ``OptionError`` for a strict budget that is not met, and where
    question and answer are longer than the model's context.
    """
    model: Any = answerer.model  # called, not only asked to generate
    if not answer.strip():
        raise DataError(f"{title} has an empty answer, which has no likelihood")
    question, full = (
        answerer.ids(prompt_of(answerer, context, len(images), title, given)) for given in (None, answer.strip())
    )
    known = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(question, full, strict=False)))
    sizes = [image.size for image in images]
    check_prompt_length(prompt_length(full, sizes, model), answerer.context_length, f"{title}, with its answer,")
    ids, expected = torch.tensor([full], device=model.device), torch.tensor(full[known:], device=model.device)
    batch = model.embed(ids, images=answerer.pixels(images, [full]), image_sizes=sizes or None)
    labels = torch.full_like(batch.embeds[:, :, 0], IGNORE_INDEX, dtype=torch.long)
    labels[:, -len(expected) :] = expected
    output = model(inputs_embeds=batch.embeds, labels=labels, **_forward_keywords(model, keywords, batch, expected))
    logits = output.logits[0, -len(expected) - 1 : -1].float()  # (answer's tokens, vocabulary)
    return cross_entropy(logits, expected).item(), bool((logits.argmax(dim=-1) == expected).all())


def _forward_keywords(
    model: Any, keywords: Mapping[str, Any], batch: EmbeddedBatch, answer: torch.Tensor
) -> dict[str, Any]:
    """Return the planner of an adaptive model, and the units that ``generate`` grants it for the question.

    Without a budget all layers run.
    """
    if not is_adaptive(model):
        return {}
    adaptive: Any = model
    budget, question = keywords.get("latency_budget"), batch.width - len(answer)
    granted = adaptive.grant(
        1.0 if budget is None else budget,
        1,
        question,
        batch.images_per_row,
        bool(keywords.get("strict_latency_budget")),
        ttft_predictor=keywords.get("ttft_predictor"),
    )
    return {"granted_units": granted, "planner": keywords.get("planner")}
