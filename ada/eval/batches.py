"""Many questions at a time, greedily: batches of like length, padded on the left, under a planner and a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ada.budget import LatencyBudget
from ada.cost.flops import decoder_flops
from ada.eval.answer_file import GivenAnswer
from ada.eval.question_file import Question
from ada.plan import ExecutionPlan
from ada.report import BudgetReport
from llava.generation import conversation_for, stop_text, with_image_tags
from llava.mm_utils import load_image, process_images, tokenizer_image_token
from llava.model.builder import load_pretrained_model
from llava.utils import pick_device


@dataclass
class Batch:
    """``size`` questions, their prompts' ids, and (once they are asked for) their pictures."""

    number: int
    questions: Sequence[Question]
    prompts: Sequence[Sequence[int]]
    pixels: list[torch.Tensor] | None = field(default=None, repr=False)

    @property
    def ids(self) -> list[int | str]:
        """The questions' ids."""
        return [question.question_id for question in self.questions]

    def padded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and attention mask (B, t), int64, padded on the left."""
        width = max(map(len, self.prompts))
        ids = torch.zeros(len(self.prompts), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(self.prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        return ids, mask


class Answerer:
    """A loaded checkpoint that answers batches."""

    def __init__(
        self, folder: Path, conv_mode: str | None = None, max_new_tokens: int = 16, device: str | None = None
    ) -> None:
        self.tokenizer, self.model, self.image_processor, _ = load_pretrained_model(
            str(folder), None, folder.name, device=pick_device(device)
        )
        self.max_new_tokens = max_new_tokens
        self.template = conversation_for(self.model, folder.name, conv_mode)

    def prompt(self, question: Question) -> str:
        """The question as this checkpoint is asked."""
        conversation = self.template.copy()
        conversation.append_message(conversation.roles[0], with_image_tags(self.model, question.text, 1))
        conversation.append_message(conversation.roles[1], None)
        return conversation.get_prompt()

    def batches(self, questions: Sequence[Question], size: int) -> list[Batch]:
        """All questions, sorted by the length of their prompts, so that little is padded."""
        prompts = [tokenizer_image_token(self.prompt(question), self.tokenizer) for question in questions]
        order = sorted(range(len(questions)), key=lambda i: len(prompts[i]))
        groups = [order[start : start + size] for start in range(0, len(order), size)]
        return [
            Batch(number, [questions[i] for i in group], [prompts[i] for i in group])
            for number, group in enumerate(groups)
        ]

    def see(self, batch: Batch, image_folder: Path) -> None:
        """Read a batch's pictures; every run uses the same pixels."""
        images = [load_image(str(image_folder / question.image)) for question in batch.questions]
        pixels = process_images(images, self.image_processor, self.model.config)
        batch.pixels = [image.to(self.model.device, self.model.dtype) for image in pixels]

    def answer(self, batch: Batch, planner: str, budget: LatencyBudget, seed: int) -> list[GivenAnswer]:
        """Answers in the batch's order. ``seed`` and the batch's number seed the draws of a random planner."""
        ids, mask = batch.padded()
        torch.manual_seed(seed + batch.number)
        output = self.model.generate(
            ids.to(self.model.device),
            attention_mask=mask.to(self.model.device),
            images=batch.pixels,
            latency_budget=budget,
            planner=planner,
            do_sample=False,
            max_new_tokens=self.max_new_tokens,
            pad_token_id=self.tokenizer.pad_token_id or self.tokenizer.eos_token_id,
            return_dict_in_generate=True,
        )
        texts = self.tokenizer.batch_decode(output.sequences, skip_special_tokens=True)
        single = len(batch.questions) == 1
        plans = [output.execution_plan] if single else output.execution_plan
        reports = [output.report] if single else output.report
        padding = (mask == 0).sum(dim=1).tolist()
        return [
            GivenAnswer(
                question.question_id,
                self._text(texts[row]),
                plans[row].share,
                self._gflops(plans[row], reports[row], reports[row].prompt_tokens - padding[row]),
            )
            for row, question in enumerate(batch.questions)
        ]

    def _gflops(self, plan: ExecutionPlan, report: BudgetReport, tokens: int) -> float:
        """The prefill as it is when the question is asked alone: the batch's own report counts padding, and layers
        that were masked whole because other rows have other plans."""
        decoder = decoder_flops(self.model.config, self.model.units, plan, tokens, tokens)
        return sum({**report.prefill_flops, **decoder}.values()) / 1e9

    def _text(self, decoded: str) -> str:
        """What stands in front of the template's stop text."""
        stop = stop_text(self.template)
        return (decoded.partition(stop)[0] if stop else decoded).strip()
