"""Answers questions greedily under a planner and a budget: in batches for accuracy, one by one for latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ada.eval.answering.answer_file import GivenAnswer, GivenTimes
from ada.eval.questions.question_set import Item
from ada.overlay import describe_row
from llava.eval.answering import batched_generation as batches
from llava.generation import SamplingParams
from llava.model.loaded_model import open_model
from llava.protocols import Images
from llava.token_clock import TokenClock


@dataclass(frozen=True)
class Batch:
    """Some of a set's questions, with their positions in the set and their prompts' token ids."""

    number: int
    positions: Sequence[int]
    items: Sequence[Item]
    prompts: Sequence[Sequence[int]]


@dataclass(frozen=True)
class BatchImages:
    """The images of a batch in the order of its questions: ``pixels`` as ``generate`` takes them, (width, height)."""

    pixels: Images | None
    sizes: Sequence[tuple[int, int]] | None


def title_of(item: Item) -> str:
    """Return how messages name a question."""
    return f"question {item.question.question_id!r}"


class Answerer:
    """A loaded checkpoint that answers batches."""

    def __init__(
        self,
        folder: Path,
        conv_mode: str | None = None,
        max_new_tokens: int = 16,
        device: str | None = None,
        narrow_cache_gb: float | None = None,
    ) -> None:
        options = {"conv_mode": conv_mode, "device": device, "narrow_cache_gb": narrow_cache_gb}
        loaded = open_model({"model_path": str(folder), "model_name": folder.name, **options})
        self.model: Any = loaded.model  # a plain LLaVA, until it is made adaptive
        self.asked = batches.Answerer(loaded.model, loaded.tokenizer, loaded.image_processor, loaded.template)
        self.sampling = SamplingParams(max_new_tokens=max_new_tokens)

    def batches(self, items: Sequence[Item], size: int, positions: Sequence[int] | None = None) -> list[Batch]:
        """Group questions by the length of their prompts, so that little is padded; in order where ``size`` is 1.

        positions: of the wanted questions in ``items``; by default all of them. Raises OptionError for a question that
        the model's context has no position to answer.
        """
        wanted = range(len(items)) if positions is None else positions
        prompts = [self.prompt(items[position]) for position in wanted]
        self.asked.check_lengths(prompts, [title_of(items[position]) for position in wanted])
        return [
            Batch(
                number,
                [wanted[i] for i in group],
                [items[wanted[i]] for i in group],
                [prompts[i] for i in group],
            )
            for number, group in enumerate(batches.groups_by_length(prompts, size))
        ]

    def prompt(self, item: Item) -> list[int]:
        """Return a question's prompt as token ids, with an image tag where it has an image."""
        return self.asked.ids(self.asked.prompt(item.question.text, item.question.open_image is not None))

    def read_images(self, batch: Batch) -> BatchImages:
        """Read a batch's images; every run uses the same pixels."""
        images = [item.question.open_image() for item in batch.items if item.question.open_image is not None]
        return BatchImages(self.asked.pixels(images, batch.prompts), [image.size for image in images] or None)

    def answer(self, batch: Batch, images: BatchImages, options: Mapping[str, Any], seed: int) -> list[GivenAnswer]:
        """Answer a batch, in its order, with the ``options`` of ``generate``.

        ``seed`` and the batch's number seed the draws of a random planner.
        """
        torch.manual_seed(seed + batch.number)
        keywords = dict(options)
        titles = [title_of(item) for item in batch.items]
        given = self.asked.answer(batch.prompts, images.pixels, images.sizes, self.sampling, keywords, titles=titles)
        rows = [describe_row(self.model, given.output, row) for row in range(len(batch.items))]
        return [
            GivenAnswer(
                position,
                item.question.question_id,
                text,
                row["share"],
                row["prefill_gflops"],
                row["plan"],
                row["image_tokens"],
            )
            for position, item, text, row in zip(batch.positions, batch.items, given.texts, rows, strict=True)
        ]

    def time(self, batch: Batch, options: Mapping[str, Any], seed: int, tokens: int) -> GivenTimes:
        """Time a batch of one from its opened image to the last of ``tokens`` tokens, then again to its first token.

        The answer may not end before, so that there are further tokens to time after the first one.
        """
        images = [item.question.open_image() for item in batch.items if item.question.open_image is not None]
        sizes = [image.size for image in images] or None
        clocks = []
        for length in (tokens, 1):
            torch.manual_seed(seed + batch.number)
            keywords = {**options, "min_new_tokens": length}
            clocks.append(TokenClock(None))
            pixels = self.asked.pixels(images, batch.prompts)
            self.asked.answer(batch.prompts, pixels, sizes, SamplingParams(max_new_tokens=length), keywords, clocks[-1])
        first, again = (clock.timing()["time_to_first_token_ms"] for clock in clocks)
        return GivenTimes(batch.positions[0], first, clocks[0].token_ms(), again)
