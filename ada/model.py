"""LLaVA with a latency budget: budget -> units -> latency token -> prefix -> scheduler -> plan -> narrow layers."""

from __future__ import annotations

from collections.abc import Sequence as Rows
from typing import Any

import torch

from ada.budget import LatencyBudget, TimeBudget, budgets_of_rows
from ada.calibration.device_latency import DeviceLatency
from ada.config import (
    AdaLlavaConfig,
    AdaLlavaMistralConfig,
    AdaLlavaQwenConfig,
    check_layer_kinds,
    check_token_selecting,
)
from ada.execution import Execution
from ada.grant import granted_units
from ada.latency_token import Sequence, insert, token_place
from ada.maskable_layer import install
from ada.narrow import NarrowCache, projection_bytes
from ada.planners import planner_named
from ada.report import pictures_of_rows, report
from ada.scheduler import Scheduler
from ada.selection import Noise, gumbel
from ada.train.draws import Draws
from ada.units import Units
from llava.errors import OptionError
from llava.model.language_model.llava_decoder import LlavaCausalLM
from llava.model.language_model.llava_llama import LlavaLlamaForCausalLM
from llava.model.language_model.llava_mistral import LlavaMistralForCausalLM
from llava.model.language_model.llava_qwen import LlavaQwenForCausalLM
from llava.model.multimodal_inputs import pad_left

Budget = LatencyBudget | TimeBudget | float | int | str
# Narrow layers may take as much memory as the tunable layers themselves, which holds any one plan; a small model
# keeps many plans.
LEAST_CACHE_BYTES = 256 << 20


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
        self.narrow_cache = NarrowCache(max(LEAST_CACHE_BYTES, sum(projection_bytes(layer) for layer in tunable)))
        # Training draws each sample's budget evenly from the unit grid between these fractions.
        self.training_budgets = (self.units.fraction(0), 1.0)
        self.latency: DeviceLatency | None = None  # what budgets in time go by, once the device is calibrated
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
        running generation. ``draws``: the random numbers of training; without them torch's global generator's.
        """
        started = execution is None and (latency_budget is not None or self.training)
        inputs: dict[str, Any] = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
            "labels": labels,
            "images": images,
            "image_sizes": image_sizes,
        }
        if started:
            sequence = self._embed(**inputs)
            rows = len(sequence.embeds)
            pictures = [0] * rows if input_ids is None else self._pictures(input_ids, attention_mask, images)
            if latency_budget is None:
                granted = self._draw_units(rows, draws)
            else:
                granted = self.grant(latency_budget, rows, sequence.width, pictures)
            noise = draws.gumbel(rows, self.device) if draws and self.training else None
            sequence, execution = self.begin(sequence, granted, planner, noise)
            inputs = sequence.inputs()
        outputs = super().forward(
            **inputs,
            past_key_values=past_key_values,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            execution=execution,
            **kwargs,
        )
        if not started or execution is None or isinstance(outputs, tuple):
            return outputs
        # As items: accelerate rebuilds a bfloat16 run's outputs from their items, and drops bare attributes.
        outputs["granted_units"], outputs["gates"], outputs["labels"] = granted, execution.gates, sequence.labels
        if not execution.train:
            scored = outputs.logits.shape[1]
            self._describe(outputs, latency_budget, granted, execution, sequence, pictures, scored)
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
        these per row; the whole model without one. The plan is made in prefill and holds for every token.

        With ``return_dict_in_generate=True`` the output carries ``execution_plan`` and ``report``; with several rows
        these are lists.
        """
        if kwargs.pop("inputs_embeds", None) is not None:
            raise OptionError("generate() makes inputs_embeds from token ids and images; give it those")
        input_ids, mask = kwargs.pop("input_ids", inputs), kwargs.pop("attention_mask", None)
        kwargs.pop("position_ids", None)  # they follow from the mask
        spliced = self._embed(input_ids, None, mask, None, images, image_sizes)
        embeds, padding = pad_left(spliced.embeds, spliced.attention_mask)
        rows = len(embeds)
        pictures = self._pictures(input_ids, mask, images)
        granted = self.grant(latency_budget, rows, embeds.shape[1], pictures, strict_latency_budget)
        sequence, execution = self.begin(Sequence(embeds, padding, None, None), granted, planner, train=False)
        output = super(LlavaCausalLM, self).generate(
            inputs_embeds=sequence.embeds, attention_mask=sequence.attention_mask, execution=execution, **kwargs
        )
        if not isinstance(output, torch.Tensor):
            self._describe(output, latency_budget, granted, execution, sequence, pictures)
        return output

    def grant(
        self,
        budget: Budget | Rows[Budget] | None,
        rows: int,
        tokens: int = 0,
        pictures: Rows[int] | None = None,
        strict: bool = False,
    ) -> torch.Tensor:
        """Tunable units (rows,), int64, under a budget or one budget a row; all of them where none is given.

        tokens: positions of the prompt, and pictures of each row, by which a budget in time goes. strict: refuse a
        budget that not even the cheapest plan keeps, with OptionError.
        """
        seen = pictures or [0] * rows
        width = tokens + (self.scheduler is not None)  # and the latency token
        units = [
            self.units.tunable if b is None else granted_units(self.units, self.latency, b, width, p, strict)
            for b, p in zip(budgets_of_rows(budget, rows), seen, strict=True)
        ]
        return torch.tensor(units, device=self.device)

    def begin(
        self,
        sequence: Sequence,
        granted: torch.Tensor,
        planner: str | None = None,
        noise: Noise | None = None,
        narrow: bool = True,
        train: bool | None = None,
    ) -> tuple[Sequence, Execution]:
        """Put the latency token in, where the model has a scheduler, and set up one call's execution.

        sequence: (B, T, D) embeddings and their masks; granted: (B,) tunable units; planner: a name, by default the
        one that the checkpoint was trained with; noise: the draws of training, Gumbel's by default; narrow: cut
        layers at inference rather than mask them; train: draw with noise and keep the gates' gradient, by default as
        the model's mode says.
        """
        train = self.training if train is None else train
        plan = planner_named(planner or getattr(self.config, "planner", None) or "learned")
        scheduler, place = self.scheduler, None
        if scheduler is not None:
            place = token_place(sequence)
            token = scheduler.encode(granted / (self.units.tunable + 1))
            sequence = insert(sequence, token.to(sequence.embeds), place)
        if train and noise is None:
            noise = gumbel(device=sequence.embeds.device)

        def choose(state: torch.Tensor | None) -> torch.Tensor:
            logits = None if scheduler is None or state is None else scheduler(state)
            return plan(self.units, granted if logits is None else granted.to(logits.device), logits, noise)

        cache = self.narrow_cache if narrow else None
        return sequence, Execution(self.units, choose, place, cache, train=train)

    def _describe(
        self,
        output: Any,
        budget: Budget | Rows[Budget] | None,
        granted: torch.Tensor,
        execution: Execution,
        sequence: Sequence,
        pictures: list[int],
        scored: int = 1,
    ) -> None:
        """Put plan and report on the output, or, for several rows, lists of them."""
        rows = len(pictures)
        plans, budgets, mask = execution.finish(rows), budgets_of_rows(budget, rows), sequence.attention_mask
        padding = [0] * rows if mask is None else (mask == 0).sum(dim=1).tolist()
        reports = [
            report(self, budgets[row], units, execution, row, sequence.width, pictures[row], scored, padding[row])
            for row, units in enumerate(granted.tolist())
        ]
        output.execution_plan, output.report = (plans, reports) if rows > 1 else (plans[0], reports[0])

    def _pictures(self, input_ids: torch.Tensor, mask: torch.Tensor | None, images: Any) -> list[int]:
        """Pictures that the vision tower sees for each row."""
        return pictures_of_rows(input_ids, mask, images if self.get_vision_tower() else None)

    def _draw_units(self, rows: int, draws: Draws | None) -> torch.Tensor:
        """Random tunable units (rows,), even over the grid of ``training_budgets``."""
        least, most = (self.units.granted(fraction) for fraction in self.training_budgets)
        if draws is None:
            return torch.randint(least, most + 1, (rows,), device=self.device)
        return draws.integers(least, most, rows).to(self.device)

    def _embed(
        self,
        input_ids: torch.Tensor | None,
        position_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        labels: torch.Tensor | None,
        images: Any,
        image_sizes: Any,
        inputs_embeds: torch.Tensor | None = None,
    ) -> Sequence:
        """Token ids (B, t) with image tags and pictures -> the spliced sequence (B, T, D); embeddings as they are."""
        if inputs_embeds is not None:
            return Sequence(inputs_embeds, attention_mask, position_ids, labels)
        if input_ids is None:
            raise OptionError("neither token ids nor inputs_embeds are given")
        _, position_ids, attention_mask, _, embeds, labels = self.prepare_inputs_labels_for_multimodal(
            input_ids, position_ids, attention_mask, None, labels, images, image_sizes
        )
        if embeds is None:  # text only
            embeds = self.get_input_embeddings()(input_ids)
        return Sequence(embeds, attention_mask, position_ids, labels)


class AdaLlavaLlamaForCausalLM(AdaLlavaCausalLM, LlavaLlamaForCausalLM):
    """The published models' class."""

    config_class = AdaLlavaConfig


class AdaLlavaMistralForCausalLM(AdaLlavaCausalLM, LlavaMistralForCausalLM):
    """On Mistral."""

    config_class = AdaLlavaMistralConfig


class AdaLlavaQwenForCausalLM(AdaLlavaCausalLM, LlavaQwenForCausalLM):
    """On Qwen2."""

    config_class = AdaLlavaQwenConfig


# A family's plain class -> its adaptive one.
ADAPTIVE_MODELS: dict[type, Any] = {
    LlavaLlamaForCausalLM: AdaLlavaLlamaForCausalLM,
    LlavaMistralForCausalLM: AdaLlavaMistralForCausalLM,
    LlavaQwenForCausalLM: AdaLlavaQwenForCausalLM,
}


def adopt(model: Any, kind: str = "H", num_prefix_layers: int | None = None) -> None:
    """Turn a loaded plain LLaVA into an adaptive one in place. It has no scheduler: untrained planners serve it."""
    adaptive = ADAPTIVE_MODELS.get(type(model))
    if adaptive is None:
        known = ", ".join(kind.__name__ for kind in ADAPTIVE_MODELS)
        raise OptionError(f"a latency budget needs one of {known}; this model is {type(model).__name__}")
    config: Any = model.config
    config.scheduler_type = kind
    config.num_prefix_layers = num_prefix_layers or max(1, config.num_hidden_layers // 2)
    config.scheduler_rank = next(r for r in (8, 4, 2, 1) if config.num_key_value_heads % r == 0)
    model.__class__ = adaptive
    model.scheduler = None
    model._make_adaptive()
