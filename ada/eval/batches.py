"""Batches of questions under a planner and a budget, greedily."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ada.budget import LatencyBudget
from ada.eval.answer_file import GivenAnswer
from ada.eval.question_file import Question
from ada.overlay import describe_row
from llava.eval import batches
from llava.generation import Sampling, conversation_for
from llava.mm_utils import load_image
from llava.model.builder import load_pretrained_model
from llava.utils import pick_device


@dataclass
class Batch:
    """``size`` questions, their prompts' ids, and (once they are asked for) their pictures."""

    number: int
    questions: Sequence[Question]
    prompts: Sequence[Sequence[int]]
    pixels: list[torch.Tensor] | None = field(default=None, repr=False)
    sizes: list[tuple[int, int]] | None = None

    @property
    def ids(self) -> list[int | str]:
        """The questions' ids."""
        return [question.question_id for question in self.questions]


class Answerer:
    """A loaded checkpoint that answers batches."""

    def __init__(
        self, folder: Path, conv_mode: str | None = None, max_new_tokens: int = 16, device: str | None = None
    ) -> None:
        tokenizer, self.model, image_processor, _ = load_pretrained_model(
            str(folder), None, folder.name, device=pick_device(device)
        )
        template = conversation_for(self.model, folder.name, conv_mode)
        self.asked = batches.Answerer(self.model, tokenizer, image_processor, template)
        self.sampling = Sampling(max_new_tokens=max_new_tokens)

    def batches(self, questions: Sequence[Question], size: int) -> list[Batch]:
        """All questions, sorted by the length of their prompts, so that little is padded."""
        prompts = [self.asked.ids(self.asked.prompt(question.text, 1)) for question in questions]
        return [
            Batch(number, [questions[i] for i in group], [prompts[i] for i in group])
            for number, group in enumerate(batches.groups_by_length(prompts, size))
        ]

    def see(self, batch: Batch, image_folder: Path) -> None:
        """Read a batch's pictures; every run uses the same pixels."""
        images = [load_image(str(image_folder / question.image)) for question in batch.questions]
        batch.pixels = self.asked.pixels(images)
        batch.sizes = [image.size for image in images]

    def answer(self, batch: Batch, planner: str, budget: LatencyBudget, seed: int) -> list[GivenAnswer]:
        """Answers in the batch's order. ``seed`` and the batch's number seed the draws of a random planner."""
        torch.manual_seed(seed + batch.number)
        keywords = {"latency_budget": budget, "planner": planner}
        given = self.asked.answer(batch.prompts, batch.pixels, batch.sizes, self.sampling, keywords)
        facts = [describe_row(self.model, given.output, row) for row in range(len(batch.questions))]
        return [
            GivenAnswer(question.question_id, text, fact["share"], fact["prefill_gflops"])
            for question, text, fact in zip(batch.questions, given.texts, facts, strict=True)
        ]
