"""Answers several questions at a time: batches of prompts of similar length, padded on the left."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from PIL import Image
from transformers import StoppingCriteriaList

from llava.constants import IMAGE_TOKEN_INDEX
from llava.conversation import Conversation
from llava.generation import SamplingParams, stop_text, with_image_tags
from llava.mm_utils import KeywordsStoppingCriteria, tokenizer_image_token
from llava.model.multimodal.image_pipeline import ImagePipeline
from llava.model.sequence_length import answer_limit, check_prompt_length, context_length, prompt_length
from llava.protocols import ImageProcessor, Images, LlavaModel, Tokenizer
from llava.token_clock import TokenClock

Ids = Sequence[int]


def groups_by_length(prompts: Sequence[Ids], size: int) -> list[list[int]]:
    """Group the prompts' indices by ``size``, sorted by length where ``size`` > 1, so that little is padded."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i])) if size > 1 else list(range(len(prompts)))
    return [order[start : start + size] for start in range(0, len(order), size)]


def pad_left(prompts: Sequence[Ids]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and attention mask (B, T), both int64, padded on the left with zeros."""
    width = max(map(len, prompts))
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    return ids, mask


@dataclass(frozen=True)
class BatchAnswers:
    """Answers of one batch.

    texts, new_tokens: by row. padding: padded positions before each row's prompt. output: what ``generate`` returned.
    timing: of the batch, as ``TokenClock.timing`` returns it.
    """

    texts: list[str]
    new_tokens: list[int]
    padding: list[int]
    output: Any
    timing: dict[str, float]


class Answerer:
    """A loaded model that answers batches under one conversation template."""

    def __init__(
        self,
        model: LlavaModel,
        tokenizer: Tokenizer,
        image_processor: ImageProcessor | None,
        template: Conversation,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.model, self.tokenizer, self.image_processor = model, tokenizer, image_processor
        self.template, self.context_length = template, context_length(model.config)
        self.options = options or {}  # what plug-ins add to the program's options, for the hook generation_options

    def prompt(self, text: str, num_images: int, answer: str | None = None) -> str:
        """Return the conversation that asks ``text`` about ``num_images`` images, with ``answer`` where given."""
        conversation = self.template.copy()
        conversation.append_message(conversation.roles[0], with_image_tags(self.model, text, num_images))
        conversation.append_message(conversation.roles[1], answer)
        return conversation.get_prompt()

    def ids(self, prompt: str) -> list[int]:
        """Return a prompt's token ids; an image tag is one id, ``IMAGE_TOKEN_INDEX``."""
        ids: list[int] = tokenizer_image_token(prompt, self.tokenizer)
        return ids

    def check_lengths(self, prompts: Sequence[Ids], titles: Sequence[str]) -> None:
        """Check prompts before their images are opened: an image takes as many positions as one crop, or more.

        titles: of the questions, for messages. Raises OptionError for a prompt that leaves no position for an answer.
        """
        tower, maximum = self.model.get_vision_tower() if self.image_processor else None, self.context_length - 1
        crop = 0 if tower is None else tower.num_image_tokens
        for ids, title in zip(prompts, titles, strict=True):
            check_prompt_length(len(ids) + ids.count(IMAGE_TOKEN_INDEX) * (crop - 1), maximum, title)

    def answer_limits(
        self,
        prompts: Sequence[Ids],
        sizes: Sequence[tuple[int, int]] | None,
        wanted: int,
        titles: Sequence[str] | None = None,
    ) -> list[int]:
        """Return how many tokens each prompt's answer may have: ``wanted``, or what the context leaves for it.

        sizes, titles: as ``answer`` takes them. Raises OptionError for a prompt that leaves no position for an answer.
        """
        waiting = iter(sizes or ())
        limits = []
        for ids, title in zip(prompts, titles or ["the prompt"] * len(prompts), strict=True):
            own = list(islice(waiting, ids.count(IMAGE_TOKEN_INDEX)))
            limits.append(answer_limit(prompt_length(ids, own, self.model), self.context_length, wanted, title))
        return limits

    def pixels(self, images: Sequence[Image.Image], prompts: Sequence[Ids]) -> Images | None:
        """Return the vision tower's input as ``ImagePipeline.batch`` makes it; None without images.

        prompts: token ids of the batch's prompts, whose image tags stand for the images, in their order.
        """
        if not images:
            return None
        tags = [sum(token == IMAGE_TOKEN_INDEX for token in prompt) for prompt in prompts]
        pixels = ImagePipeline(self.image_processor, self.model.config).batch(images, tags)
        device, dtype = self.model.device, self.model.dtype
        if isinstance(pixels, torch.Tensor):  # not taken apart: an image of a list ends with a newline, as if of crops
            return pixels.to(device, dtype)
        return [image.to(device, dtype) for image in pixels]

    def answer(
        self,
        prompts: Sequence[Ids],
        pixels: Images | None,
        sizes: Sequence[tuple[int, int]] | None,
        sampling: SamplingParams,
        keywords: Mapping[str, Any],
        clock: TokenClock | None = None,
        stops: Sequence[str] = (),
        titles: Sequence[str] | None = None,
    ) -> BatchAnswers:
        """Answer a batch of prompts; answers are in the prompts' order.

        pixels, sizes: of the images, (width, height), in the order of the image tags over all prompts. keywords: the
        plug-ins', for ``generate``. stops: texts that end an answer, in addition to the template's. titles: of the
        questions, for messages. Raises OptionError for a prompt that leaves no position for an answer.
        """
        clock = clock or TokenClock(None)
        limits = self.answer_limits(prompts, sizes, sampling.max_new_tokens, titles)
        sampling = replace(sampling, max_new_tokens=max(limits))
        ids, mask = (tensor.to(self.model.device) for tensor in pad_left(prompts))
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
        # Each to its limit, so that an answer does not depend on the others of its batch.
        rows = [row[:limit] for row, limit in zip(output.sequences.tolist(), limits, strict=True)]
        return BatchAnswers(
            self._texts(rows, stops),
            [self._length(row) for row in rows],
            (mask == 0).sum(dim=1).tolist(),
            output,
            clock.timing(),
        )

    def _texts(self, rows: Sequence[list[int]], stops: Sequence[str]) -> list[str]:
        """Decode the rows, each up to the first of ``stops``."""
        texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        return [functools.reduce(lambda text, stop: text.partition(stop)[0], stops, text).strip() for text in texts]

    def _length(self, row: list[int]) -> int:
        """Count the tokens up to the one that ends the answer; what follows in a batch is padding."""
        ends = self.model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        return next((count for count, token in enumerate(row, 1) if token in ends), len(row))
