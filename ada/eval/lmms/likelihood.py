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
from llava.errors import DataError
from llava.eval.answering.batched_generation import Answerer
from llava.kv_cache import DecodingBatch
from llava.model.sequence_length import check_prompt_length, prompt_length
from llava.plugins import hooks


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

    The answer's end counts, as in training. ``generate`` reads the question, under its plan and with the image tokens
    that it chooses; the answer continues from there. keywords: the plug-ins', as for ``generate``. title: of the
    question, for messages. Raises ``DataError`` for an empty answer and ``OptionError`` for a strict budget that is not
    met, and where question and answer are longer than the model's context.
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
    ids = torch.tensor([full], device=model.device)
    output = model.generate(
        ids[:, :known],
        images=answerer.pixels(images, [full]),
        image_sizes=sizes or None,
        max_new_tokens=1,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        output_logits=True,
        return_dict_in_generate=True,
        pad_token_id=answerer.tokenizer.eos_token_id,  # one row: nothing is padded
        **({"engine": "transformers"} if is_adaptive(model) else {}),  # whose cache goes on below
        **keywords,
    )
    expected = ids[0, known:]
    logits = torch.cat([output.logits[0], _logits_after(model, output, expected[:-1])]).float()  # (tokens, vocabulary)
    return cross_entropy(logits, expected).item(), bool((logits.argmax(dim=-1) == expected).all())


def _logits_after(model: Any, output: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Return the logits (t, vocabulary) after each of ``tokens`` (t,), which continue a generation's prompt."""
    cache = output.past_key_values
    length = cache.get_seq_length()
    batch = hooks().decoding_batch(model=model, outputs=[output], lengths=[length])
    batch = DecodingBatch([]) if batch is None else batch
    (gap,) = batch.position_gaps or [0]
    positions = torch.arange(length, length + len(tokens), device=tokens.device)
    outputs = model(
        input_ids=tokens[None],
        attention_mask=torch.ones(1, length + len(tokens), dtype=torch.long, device=tokens.device),
        position_ids=positions[None] + gap,
        past_key_values=cache,
        use_cache=True,
        **batch.forward_kwargs,
    )
    logits: torch.Tensor = outputs.logits[0]
    return logits
