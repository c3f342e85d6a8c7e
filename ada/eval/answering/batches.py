"""Questions under a planner and a budget, greedily: in batches for their answers, one by one for their times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ada.budget import LatencyBudget
from ada.eval.answering.answer_file import GivenAnswer, GivenTimes
from ada.eval.questions.question_set import Item
from ada.overlay import describe_row
from llava.eval.answering import batched_generation as batches
from llava.generation import SamplingParams, TokenClock
from llava.model.loaded_model import open_model


@dataclass
class Batch:
    """Some of a set's questions: their places in it, their prompts' ids, and (once they are asked for) pictures."""

    number: int
    places: Sequence[int]
    items: Sequence[Item]
    prompts: Sequence[Sequence[int]]
    pixels: list[torch.Tensor] | None = field(default=None, repr=False)
    sizes: list[tuple[int, int]] | None = None


class Answerer:
    """A loaded checkpoint that answers batches."""

    def __init__(
        self, folder: Path, conv_mode: str | None = None, max_new_tokens: int = 16, device: str | None = None
    ) -> None:
        loaded = open_model(
            {"model_path": str(folder), "model_name": folder.name, "conv_mode": conv_mode, "device": device}
        )
        self.model = loaded.model
        self.asked = batches.Answerer(loaded.model, loaded.tokenizer, loaded.image_processor, loaded.template)
        self.sampling = SamplingParams(max_new_tokens=max_new_tokens)

    def batches(self, items: Sequence[Item], size: int) -> list[Batch]:
        """All questions, sorted by the length of their prompts, so that little is padded."""
        prompts = [self.prompt(item) for item in items]
        return [
            Batch(number, group, [items[i] for i in group], [prompts[i] for i in group])
            for number, group in enumerate(batches.groups_by_length(prompts, size))
        ]

    def prompt(self, item: Item) -> list[int]:
        """Token ids, an image tag among them where there is a picture."""
        return self.asked.ids(self.asked.prompt(item.question.text, item.question.picture is not None))

    def see(self, batch: Batch) -> None:
        """Read a batch's pictures; every run uses the same pixels."""
        images = [item.question.picture() for item in batch.items if item.question.picture is not None]
        batch.pixels = self.asked.pixels(images)
        batch.sizes = [image.size for image in images] or None

    def answer(self, batch: Batch, planner: str, budget: LatencyBudget, seed: int) -> list[GivenAnswer]:
        """Answers in the batch's order. ``seed`` and the batch's number seed the draws of a random planner."""
        torch.manual_seed(seed + batch.number)
        keywords = {"latency_budget": budget, "planner": planner}
        given = self.asked.answer(batch.prompts, batch.pixels, batch.sizes, self.sampling, keywords)
        facts = [describe_row(self.model, given.output, row) for row in range(len(batch.items))]
        return [
            GivenAnswer(place, item.question.question_id, text, fact["share"], fact["prefill_gflops"], fact["plan"])
            for place, item, text, fact in zip(batch.places, batch.items, given.texts, facts, strict=True)
        ]

    def time(self, batch: Batch, planner: str, budget: LatencyBudget, seed: int, tokens: int) -> GivenTimes:
        """A batch of one, from its read picture to the last of ``tokens`` tokens: the answer may not end before, so
        that there is something to time behind its first token. Then the same again, to its first token."""
        images = [item.question.picture() for item in batch.items if item.question.picture is not None]
        sizes = [image.size for image in images] or None
        clocks = []
        for length in (tokens, 1):
            torch.manual_seed(seed + batch.number)
            keywords = {"latency_budget": budget, "planner": planner, "min_new_tokens": length}
            clocks.append(TokenClock(None))
            pixels = self.asked.pixels(images)
            self.asked.answer(batch.prompts, pixels, sizes, SamplingParams(max_new_tokens=length), keywords, clocks[-1])
        first, again = (clock.timing()["time_to_first_token_ms"] for clock in clocks)
        return GivenTimes(batch.places[0], first, clocks[0].token_ms(), again)
