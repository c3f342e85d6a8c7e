"""LLaVA with a latency budget: budget -> units -> latency token -> prefix -> scheduler -> plan -> narrow layers."""

from __future__ import annotations

from collections.abc import Sequence as Rows
from typing import Any

import torch

from ada.budget import LatencyBudget, TimeBudget, budgets_of_rows
from ada.config import AdaLlavaConfig, check_layer_kinds, check_token_selecting
from ada.execution.call_state import Execution
from ada.execution.maskable_layer import install
from ada.execution.narrow_layers import NarrowCache, projection_bytes
from ada.latency.call_clock import CallClock
from ada.latency.grant import granted_units
from ada.latency.latency_model import NO_TIME_ELAPSED, Elapsed, Workload
from ada.latency.ttft_predictor import TTFTPredictor
from ada.model.budget_report import pictures_of_rows, report
from ada.model.output import BudgetedOutput
from ada.scheduling.latency_token import EmbeddedBatch, insert, token_place
from ada.scheduling.planners import planner_named
from ada.scheduling.sample_rng import Draws
from ada.scheduling.scheduler import Scheduler
from ada.scheduling.selection import Noise
from ada.scheduling.units import Units
from ada.train.recipe import Recipe, distance
from llava.errors import OptionError
from llava.model.language_model.llava_decoder import LlavaCausalLM
from llava.model.language_model.llava_llama import LlavaLlamaForCausalLM
from llava.model.multimodal.merge_inputs import pad_left

Budget = LatencyBudget | TimeBudget | float | int | str
# Narrow layers may take as much memory as the tunable layers themselves, which holds any one plan; a small model
# keeps many plans.
MIN_CACHE_BYTES = 256 << 20


class AdaLlavaCausalLM(LlavaCausalLM):
    """Mixed in front of a family's LLaVA: its layers behind the first P run as a plan says."""

    never_quantised = (*LlavaCausalLM.never_quantised, "scheduler")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        check_token_selecting(config)
        self.scheduler: Scheduler | None = Scheduler(Units.of(config), config.hidden_size)
        self._make_adaptive()
        self.post_init()

    def _make_adaptive(self) -> None:
        check_layer_kinds(self.config)
        self.units = Units.of(self.config)
        tunable = self.model.layers[self.units.num_prefix_layers :]
        self.narrow_cache = NarrowCache(max(MIN_CACHE_BYTES, sum(projection_bytes(layer) for layer in tunable)))
        self.recipe = Recipe((self.units.fraction(0), 1.0))  # of training
        self.latency: TTFTPredictor | None = None  # what budgets in time go by, once the device is calibrated
        install(self.model.layers)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        images: Any = None,
        image_sizes: Any = None,
        logits_to_keep: int | torch.Tensor = 0,
        latency_budget: Budget | Rows[Budget] | None = None,
        planner: str | None = None,
        execution: Execution | None = None,
        draws: Draws | None = None,
        **kwargs: Any,
    ) -> Any:
        """LLaVA's forward; under a plan where ``latency_budget`` is given, and always in training, where each row
        draws its own.

        ``latency_budget``: as ``generate`` takes it. The logits then have one more position, the latency token's,
        and the output carries ``granted_units`` (B,), ``gates`` (B, N, 2, A), the widened ``labels`` (B, T + 1) and,
        outside training, ``execution_plan`` and ``report`` as ``generate``'s. ``execution`` belongs to the steps of a
        running generation. ``draws``: the random numbers of training; by default at random.
        """
        inputs: dict[str, Any] = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
            "labels": labels,
            "images": images,
            "image_sizes": image_sizes,
        }
        others: dict[str, Any] = {
            "past_key_values": past_key_values,
            "use_cache": use_cache,
            "logits_to_keep": logits_to_keep,
            **kwargs,
        }
        if execution is not None or (latency_budget is None and not self.training):
            return super().forward(**inputs, **others, execution=execution)
        sequence = self._embed(**inputs)
        rows = len(sequence.embeds)
        pictures = [0] * rows if input_ids is None else self._pictures(input_ids, attention_mask, images)
        if latency_budget is None:
            draws = draws or Draws.at_random()
            granted = self.recipe.draw_units(self.units, draws, rows).to(self.device)
        else:
            prompt = int(token_place(sequence).max())  # as ``generate`` would see it, without the answer
            granted = self.grant(latency_budget, rows, prompt, pictures)
        distilled = self.training and self.recipe.distillation > 0
        teacher = self._answer_in_full(sequence) if distilled else None
        sequence, execution = self.begin(sequence, granted, planner, draws=draws)
        inputs = dict(sequence.inputs())
        outputs = super().forward(**inputs, **others, execution=execution)
        if isinstance(outputs, tuple):
            return outputs
        if teacher is not None and sequence.labels is not None:
            apart = distance(outputs.logits, teacher, sequence.labels, kwargs.get("num_items_in_batch"))
            outputs["loss"] = outputs.loss + self.recipe.distillation * apart
        told = {"granted_units": execution.granted, "gates": execution.gates, "labels": sequence.labels}
        outputs = BudgetedOutput(**outputs, **told)
        if not execution.train:
            scored = outputs.logits.shape[1]
            self._describe(outputs, latency_budget, execution, sequence, pictures, scored)
        return outputs

    @torch.no_grad()
    def generate(
        self,
        inputs: torch.Tensor | None = None,
        images: Any = None,
        image_sizes: Any = None,
        latency_budget: Budget | Rows[Budget] | None = None,
        planner: str | None = None,
        strict_latency_budget: bool = False,
        **kwargs: Any,
    ) -> Any:
        """LLaVA's generate under a budget: a float, a string as on the command line, a ``LatencyBudget``, or one of
        these per row; the whole model without one. The plan is made in prefill and holds for every token. What a
        budget in time grants tells the latency token; by the time the plan is made, what is left of it decides.

        With ``return_dict_in_generate=True`` the output carries ``execution_plan`` and ``report``; with several rows
        these are lists.
        """
        if kwargs.pop("inputs_embeds", None) is not None:
            raise OptionError("generate() makes inputs_embeds from token ids and images; give it those")
        clock = CallClock.start(kwargs.get("stopping_criteria"))
        input_ids, mask = kwargs.pop("input_ids", inputs), kwargs.pop("attention_mask", None)
        kwargs.pop("position_ids", None)  # they follow from the mask
        spliced = self._embed(input_ids, None, mask, None, images, image_sizes)
        embeds, padding = pad_left(spliced.embeds, spliced.attention_mask)
        rows, width = embeds.shape[:2]
        pictures = self._pictures(input_ids, mask, images)
        granted = self.grant(latency_budget, rows, width, pictures, strict_latency_budget, clock.gone)
        sequence, execution = self.begin(EmbeddedBatch(embeds, padding, None, None), granted, planner, train=False)
        execution.clock = clock
        execution.recompute_granted_units = lambda: self.grant(latency_budget, rows, width, pictures, gone=clock.gone)
        output = super(LlavaCausalLM, self).generate(
            inputs_embeds=sequence.embeds, attention_mask=sequence.attention_mask, execution=execution, **kwargs
        )
        if not isinstance(output, torch.Tensor):
            self._describe(output, latency_budget, execution, sequence, pictures)
        if rows == 1:
            self._learn_from(clock, Workload(sequence.width, int(execution.granted[0]), pictures[0]))
        return output

    def _learn_from(self, clock: CallClock, ran: Workload) -> None:
        """Correct the calibration by what a call took."""
        measured = clock.times()
        if self.latency is not None and measured is not None:
            self.latency.observe(self.latency.expected(ran), measured)

    def grant(
        self,
        budget: Budget | Rows[Budget] | None,
        rows: int,
        tokens: int = 0,
        pictures: Rows[int] | None = None,
        strict: bool = False,
        gone: Elapsed = NO_TIME_ELAPSED,
    ) -> torch.Tensor:
        """Tunable units (rows,), int64, under a budget or one budget a row; all of them where none is given.

        tokens: positions of the prompt, and pictures of each row, by which a budget in time goes. strict: refuse a
        budget that not even the cheapest plan keeps, with OptionError. gone: what of the time has gone by.
        """
        seen = pictures or [0] * rows
        width = tokens + (self.scheduler is not None)  # and the latency token
        units = [
            self.units.tunable if b is None else granted_units(self.units, self.latency, b, width, p, strict, gone)
            for b, p in zip(budgets_of_rows(budget, rows), seen, strict=True)
        ]
        return torch.tensor(units, device=self.device)

    def begin(
        self,
        sequence: EmbeddedBatch,
        granted: torch.Tensor,
        planner: str | None = None,
        noise: Noise | None = None,
        narrow: bool = True,
        train: bool | None = None,
        draws: Draws | None = None,
    ) -> tuple[EmbeddedBatch, Execution]:
        """Put the latency token in, where the model has a scheduler, and set up one call's execution.

        sequence: (B, T, D) embeddings and their masks; granted: (B,) tunable units; planner: a name, by default the
        one that the checkpoint was trained with; noise: of training, by default the recipe's, of ``draws`` or at
        random; narrow: cut layers at inference rather than mask them; train: draw with noise and keep the gates'
        gradient, by default as the model's mode says.
        """
        train = self.training if train is None else train
        plan = planner_named(planner or getattr(self.config, "planner", None) or "learned")
        scheduler, place = self.scheduler, None
        if scheduler is not None:
            place = token_place(sequence)
            token = scheduler.encode(granted / (self.units.tunable + 1))
            sequence = insert(sequence, token.to(sequence.embeds), place)
        if train and noise is None:
            noise = self.recipe.noise(draws or Draws.at_random(), len(granted), sequence.embeds.device)
        reads_budget_alone = getattr(self.config, "scheduler_input", None) == "budget"

        def choose(state: torch.Tensor | None, granted: torch.Tensor) -> torch.Tensor:
            state = token[:, 0] if scheduler is not None and reads_budget_alone else state
            logits = None if scheduler is None or state is None else scheduler(state)
            return plan(self.units, granted if logits is None else granted.to(logits.device), logits, noise)

        cache = self.narrow_cache if narrow else None
        return sequence, Execution(self.units, granted, choose, place, cache, train=train)

    def _describe(
        self,
        output: Any,
        budget: Budget | Rows[Budget] | None,
        execution: Execution,
        sequence: EmbeddedBatch,
        pictures: list[int],
        scored: int = 1,
    ) -> None:
        """Put plan and report on the output, or, for several rows, lists of them."""
        rows = len(pictures)
        plans, budgets, mask = execution.finish(rows), budgets_of_rows(budget, rows), sequence.attention_mask
        padding = [0] * rows if mask is None else (mask == 0).sum(dim=1).tolist()
        reports = [
            report(self, budgets[row], execution, row, sequence.width, pictures[row], scored, padding[row])
            for row in range(rows)
        ]
        output.execution_plan, output.report = (plans, reports) if rows > 1 else (plans[0], reports[0])

    def _pictures(self, input_ids: torch.Tensor, mask: torch.Tensor | None, images: Any) -> list[int]:
        """Pictures that the vision tower sees for each row."""
        return pictures_of_rows(input_ids, mask, images if self.get_vision_tower() else None)

    @torch.no_grad()
    def _answer_in_full(self, sequence: EmbeddedBatch) -> torch.Tensor:
        """The logits (B, T + 1, V) of the model as it is now, told that all of it may run."""
        everything = self.grant(None, len(sequence.embeds))
        sequence, execution = self.begin(sequence, everything, train=False)
        inputs: dict[str, Any] = sequence.inputs()
        return super().forward(**inputs, execution=execution, use_cache=False).logits

    def _embed(
        self,
        input_ids: torch.Tensor | None,
        position_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        labels: torch.Tensor | None,
        images: Any,
        image_sizes: Any,
        inputs_embeds: torch.Tensor | None = None,
    ) -> EmbeddedBatch:
        """Token ids (B, t) with image tags and pictures -> the spliced sequence (B, T, D); embeddings as they are."""
        if inputs_embeds is not None:
            return EmbeddedBatch(inputs_embeds, attention_mask, position_ids, labels)
        if input_ids is None:
            raise OptionError("neither token ids nor inputs_embeds are given")
        _, position_ids, attention_mask, _, embeds, labels = self.prepare_inputs_labels_for_multimodal(
            input_ids, position_ids, attention_mask, None, labels, images, image_sizes
        )
        if embeds is None:  # text only
            embeds = self.get_input_embeddings()(input_ids)
        return EmbeddedBatch(embeds, attention_mask, position_ids, labels)


class AdaLlavaLlamaForCausalLM(AdaLlavaCausalLM, LlavaLlamaForCausalLM):
    """The published models' class."""

    config_class = AdaLlavaConfig
