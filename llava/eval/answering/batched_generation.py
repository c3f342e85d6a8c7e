"""Many questions at a time: batches of like length, padded on the left."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers import StoppingCriteriaList

from llava.conversation import Conversation
from llava.generation import SamplingParams, TokenClock, stop_text, with_image_tags
from llava.mm_utils import KeywordsStoppingCriteria, process_images, tokenizer_image_token

Ids = Sequence[int]


def groups_by_length(prompts: Sequence[Ids], size: int) -> list[list[int]]:
    """Positions of all prompts in groups of ``size``, sorted by length, so that little is padded."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i])) if size > 1 else list(range(len(prompts)))
    return [order[start : start + size] for start in range(0, len(order), size)]


def padded(prompts: Sequence[Ids]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask (B, t), int64, padded on the left."""
    width = max(map(len, prompts))
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    return ids, mask


@dataclass(frozen=True)
class BatchAnswers:
    """``texts`` and ``new_tokens`` by row; ``padding``: positions in front of each row's prompt; ``output``: what
    ``generate`` returned; ``timing``: the batch's, as ``TokenClock.timing`` gives it."""

    texts: list[str]
    new_tokens: list[int]
    padding: list[int]
    output: Any
    timing: dict[str, float]


class Answerer:
    """A loaded model that answers batches under one conversation template."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        image_processor: Any,
        template: Conversation,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.model, self.tokenizer, self.image_processor = model, tokenizer, image_processor
        self.template = template
        self.options = options or {}  # what plug-ins added to the program's, for the hook ``generation_options``

    def prompt(self, text: str, pictures: int, answer: str | None = None) -> str:
        """The question as this model is asked, with a tag for each of its pictures; with its answer, where given."""
        conversation = self.template.copy()
        conversation.append_message(conversation.roles[0], with_image_tags(self.model, text, pictures))
        conversation.append_message(conversation.roles[1], answer)
        return conversation.get_prompt()

    def ids(self, prompt: str) -> list[int]:
        """A prompt's token ids, its image tags among them."""
        return tokenizer_image_token(prompt, self.tokenizer)

    def pixels(self, images: Sequence[Image.Image]) -> list[torch.Tensor] | None:
        """What the vision tower gets, one tensor a picture; None where there is no picture."""
        if not images:
            return None
        pixels = process_images(list(images), self.image_processor, self.model.config)
        return [image.to(self.model.device, self.model.dtype) for image in pixels]

    def answer(
        self,
        prompts: Sequence[Ids],
        pixels: Sequence[torch.Tensor] | None,
        sizes: Sequence[tuple[int, int]] | None,
        sampling: SamplingParams,
        keywords: Mapping[str, Any],
        clock: TokenClock | None = None,
        stops: Sequence[str] = (),
    ) -> BatchAnswers:
        """Answers in the prompts' order. ``pixels`` and the pictures' ``sizes`` (width, height) follow the order of the
        image tags over all prompts; ``keywords`` are the plug-ins' for ``generate``; an answer ends in front of the
        first of ``stops`` in it, beside what ends one in the template."""
        clock = clock or TokenClock(None)
        ids, mask = (tensor.to(self.model.device) for tensor in padded(prompts))
        stops = [text for text in (stop_text(self.template), *stops) if text]
        criteria = [KeywordsStoppingCriteria(stops, self.tokenizer, ids)] if stops else []
        pad = self.tokenizer.pad_token_id
        output = self.model.generate(
            ids,
            attention_mask=mask,
            images=pixels,
            image_sizes=sizes,
            return_dict_in_generate=True,
            use_cache=True,
            clock=clock,
            stopping_criteria=StoppingCriteriaList(criteria),
            pad_token_id=self.tokenizer.eos_token_id if pad is None else pad,
            **sampling.keywords(),
            **keywords,
        )
        texts = self.tokenizer.batch_decode(output.sequences, skip_special_tokens=True)
        return BatchAnswers(
            [functools.reduce(lambda text, stop: text.partition(stop)[0], stops, text).strip() for text in texts],
            [self._length(row) for row in output.sequences.tolist()],
            (mask == 0).sum(dim=1).tolist(),
            output,
            clock.timing(),
        )

    def _length(self, row: list[int]) -> int:
        """Tokens up to the one that ends the answer; behind it a batch pads."""
        ends = self.model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        return next((place for place, token in enumerate(row, 1) if token in ends), len(row))
