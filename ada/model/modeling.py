"""LLaVA under a latency budget: budget -> units -> latency token -> prefix -> scheduler -> plan -> narrow layers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch

from ada.budget import BudgetLike, budgets_of_rows
from ada.config import AdaLlavaConfig, check_token_selecting
from ada.engine.engine_rows import EngineRows
from ada.engine.loop import EngineLoop
from ada.engine.support import reason_against
from ada.execution.call_state import Execution, OnPlan
from ada.image_tokens.amount import ImageTokensLike
from ada.image_tokens.answer_attention import AnswerAttention
from ada.image_tokens.encoding import EncodesImages
from ada.image_tokens.token_scorer import TokenScorer, scorer_of
from ada.latency.call_clock import CallClock
from ada.latency.pacer import pacer_of, planned
from ada.latency.ttft_predictor import TTFTPredictor
from ada.model.budgeted_output import BudgetedOutput
from ada.model.call_setup import CallSetup, describe_call
from ada.model.engine_decoding import DecodesInEngine
from ada.model.execution_setup import SetsUpExecution
from ada.model.granting import GrantsUnits
from ada.model.reading import ReadsFewerTokens
from ada.model.reporting import describe
from ada.quality.cascade import Cascade, promised
from ada.reuse.cache import ReuseCache
from ada.reuse.call_reuse import CallReuse
from ada.scheduling.scheduler import Scheduler
from ada.scheduling.selection import Noise
from ada.scheduling.units import Units
from llava.errors import OptionError
from llava.model.language_model.llava_decoder import LlavaCausalLM
from llava.model.language_model.llava_llama import LlavaLlamaForCausalLM
from llava.model.multimodal.embedded_batch import EmbeddedBatch
from llava.token_clock import TokenClock


class AdaLlavaCausalLM(SetsUpExecution, GrantsUnits, ReadsFewerTokens, DecodesInEngine, EncodesImages, LlavaCausalLM):
    """Extends a family's LLaVA: its layers after the first P run as a plan says."""

    never_quantised = (*LlavaCausalLM.never_quantised, "scheduler", "token_scorer")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        check_token_selecting(config)
        self.scheduler: Scheduler | None = Scheduler(Units.of(config), config.hidden_size)
        self.token_scorer: TokenScorer | None = scorer_of(config)
        self.install_plans()
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        images: Any = None,
        image_sizes: Any = None,
        return_dict: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        latency_budget: BudgetLike | Sequence[BudgetLike] | None = None,
        planner: str | None = None,
        ttft_predictor: TTFTPredictor | None = None,
        granted_units: torch.Tensor | None = None,
        noise: Noise | None = None,
        image_tokens: ImageTokensLike | Sequence[ImageTokensLike] | None = None,
        token_selector: str | None = None,
        learn_token_scores: bool = False,
        execution: Execution | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run LLaVA's forward; under a plan where a budget is given, and always in a scheduler's training.

        ``latency_budget``, ``planner``, ``ttft_predictor``, ``image_tokens``, ``token_selector``: as ``generate`` takes
        them. The logits then have one more position, the latency token's, and none for tokens that were left out; the
        output carries ``granted_units`` (B,), ``gates`` (B, N, 2, A), the ``labels`` of the logits' positions and,
        outside training mode, ``execution_plan`` and ``report`` as ``generate``'s. ``granted_units`` (B,) grants units
        directly, and ``noise`` is that of the draws; in training, where neither they nor a budget are given, both are
        random. ``learn_token_scores``: the loss is the token scorer's. ``execution``: of a running generation's steps.
        """
        others: dict[str, Any] = {"past_key_values": past_key_values, "use_cache": use_cache, **kwargs}
        others |= {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        others |= {"return_dict": return_dict, "logits_to_keep": logits_to_keep}
        prompt: dict[str, Any] = {"attention_mask": attention_mask, "position_ids": position_ids, "labels": labels}
        pixels: dict[str, Any] = {"images": images, "image_sizes": image_sizes}
        tokens: dict[str, Any] = {"image_tokens": image_tokens, "token_selector": token_selector}
        learns = learn_token_scores or (self.training and self.scheduler is not None)
        planned = learns or latency_budget is not None or granted_units is not None
        if execution is not None or not (planned or image_tokens is not None or token_selector is not None):
            return super().forward(
                input_ids, inputs_embeds=inputs_embeds, **prompt, **pixels, **others, execution=execution
            )
        batch = self._embedded(input_ids, inputs_embeds, prompt, {**pixels, **tokens})
        budgets = budgets_of_rows(latency_budget, len(batch.embeds))
        reading = self.read_tokens(batch, image_tokens, token_selector, budgets, planner, "right", ttft_predictor)
        if not (planned or reading.late):
            inputs: dict[str, Any] = reading.batch.inputs() | others
            return super().forward(**inputs)
        if granted_units is None:
            granted_units = self._granted_in_forward(reading, budgets, ttft_predictor)
        batch, execution = self.begin(reading.batch, granted_units.to(self.device), planner, noise, reading=reading)
        outputs = self._forward_planned(batch, execution, learn_token_scores, others)
        if not (self.training or isinstance(outputs, tuple)):
            describe(outputs, self, budgets, execution, batch, ttft_predictor, reading, scored=outputs.logits.shape[1])
        return outputs

    def _embedded(
        self,
        input_ids: torch.Tensor | None,
        inputs_embeds: torch.Tensor | None,
        prompt: dict[str, Any],
        images: dict[str, Any],
    ) -> EmbeddedBatch:
        """Return the prompts as they are given, or embedded."""
        if inputs_embeds is not None:
            return EmbeddedBatch(inputs_embeds, **prompt)
        if input_ids is not None:
            return self.embed(input_ids, **prompt, **images)
        raise OptionError("neither input_ids nor inputs_embeds are given")

    def _forward_planned(
        self, batch: EmbeddedBatch, execution: Execution, learn_token_scores: bool, others: dict[str, Any]
    ) -> Any:
        """Run a batch under its execution; where the token scorer learns, its loss replaces the labels'."""
        answer = AnswerAttention.of(batch, execution.token_position, self.config) if learn_token_scores else None
        execution.watch = answer
        inputs: dict[str, Any] = batch.inputs() | others
        outputs = super().forward(**inputs, execution=execution)
        if isinstance(outputs, tuple):
            return outputs
        outputs = BudgetedOutput(**outputs, granted_units=execution.granted, gates=execution.gates, labels=batch.labels)
        if answer is not None:
            outputs.loss = answer.loss(self.token_scorer, others.get("num_items_in_batch"))
        return outputs

    @torch.no_grad()
    def generate(
        self,
        inputs: torch.Tensor | None = None,
        images: Any = None,
        image_sizes: Any = None,
        *,
        clock: TokenClock | None = None,
        latency_budget: BudgetLike | Sequence[BudgetLike] | None = None,
        planner: str | None = None,
        strict_latency_budget: bool = False,
        ttft_predictor: TTFTPredictor | None = None,
        reuse: ReuseCache | None = None,
        max_disagreement: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run LLaVA's generate under a budget; the full model without one.

        latency_budget: a float, a string as on the command line, a ``LatencyBudget`` or ``TimeBudget``, or one of
        these per row. planner: a name, by default the one that the checkpoint was trained with. ttft_predictor: this
        device's calibration, which a time budget needs, and which learns from the call; not used by other calls unless
        they are given it too. strict_latency_budget: raise OptionError for a budget below the model's minimum.
        image_tokens: how many tokens of each image the decoder reads, as ``ImageTokens.parse`` takes it, or one a row;
        token_selector: which ones, a name of ``SELECTORS``. granted_units: (B,), grants units directly, whatever a
        budget says.

        The plan is made in prefill and holds for every token. The latency token carries what a time budget grants as
        the call begins; by the time the plan is made, what is left of it decides. With
        ``return_dict_in_generate=True`` the output carries ``execution_plan`` and ``report``; with several rows these
        are lists. engine: "auto", "ada" or "transformers", whose output alone has ``past_key_values``; running: rows of
        the engine that the prompts join. answer_limit: tokens of the answer, where others than this call decode them;
        sentence_ends: the tokens after which an answer may end that has no time left. reuse: keeps what is computed of
        images and prompts for further calls with it; the answer is the same. max_disagreement: a promise of quality in
        place of a budget, as ``ada.quality`` makes it. on_plan: is called with the plans, one a row, as they are made
        and whenever one shrinks.
        """
        return super().generate(
            inputs,
            images,
            image_sizes,
            clock=TokenClock() if clock is None and ttft_predictor is not None else clock,
            latency_budget=latency_budget,
            planner=planner,
            strict_latency_budget=strict_latency_budget,
            ttft_predictor=ttft_predictor,
            reuse=None if reuse is None else CallReuse(reuse),
            max_disagreement=max_disagreement,
            **kwargs,
        )

    def generate_from_embeds(
        self,
        batch: EmbeddedBatch,
        clock: TokenClock | None = None,
        latency_budget: BudgetLike | Sequence[BudgetLike] | None = None,
        planner: str | None = None,
        strict_latency_budget: bool = False,
        ttft_predictor: TTFTPredictor | None = None,
        image_tokens: ImageTokensLike | Sequence[ImageTokensLike] | None = None,
        token_selector: str | None = None,
        granted_units: torch.Tensor | None = None,
        engine: str = "auto",
        running: EngineRows | None = None,
        answer_limit: int | None = None,
        sentence_ends: Collection[int] = frozenset(),
        reuse: CallReuse | None = None,
        max_disagreement: float | None = None,
        on_plan: OnPlan | None = None,
        **kwargs: Any,
    ) -> Any:
        """Continue embedded prompts under a budget, as ``generate`` says."""
        rows = len(batch.embeds)
        promise = None
        if max_disagreement is not None:
            chosen: dict[str, Any] = {"latency_budget": latency_budget, "image_tokens": image_tokens}
            chosen |= {"token_selector": token_selector, "granted_units": granted_units}
            promise = promised(self.config, max_disagreement, rows, chosen, planner, kwargs)
            latency_budget = promise.budget
        limit = answer_limit or kwargs.get("max_new_tokens")
        budgets = planned(budgets_of_rows(latency_budget, rows), ttft_predictor, limit, kwargs.get("min_new_tokens"))
        by_transformers = reason_against(self, "ada" if promise else engine, kwargs)
        setup = CallSetup(
            budgets,
            planner,
            strict_latency_budget,
            ttft_predictor,
            image_tokens,
            token_selector,
            granted_units,
            reuse,
            None if clock is None else CallClock(clock),
            on_plan,
            by_transformers is None,
        )
        begun = _, prompts, execution = setup.begin(self, batch)
        pacer = pacer_of(budgets, ttft_predictor, clock, execution, sentence_ends, setup.first_token_ms(begun))
        if by_transformers is not None:
            output = super().generate_from_embeds(prompts, clock, execution=execution, **kwargs)
            cascade = None
        else:
            full = setup.for_full_model()
            cascade = None if promise is None else Cascade(promise, lambda: full.begin(self, batch), full.reuse)
            loop = EngineLoop(prompts, execution, kwargs.get("streamer"), running, pacer, reuse, cascade)
            output = self._generate_in_engine(loop, clock, kwargs)
        if not isinstance(output, torch.Tensor):
            about = {"by_transformers": by_transformers, "elapsed": setup.elapsed}
            describe_call(output, self, setup, begun, cascade, about)
        if cascade is None:
            setup.learn(begun)
        return output


class AdaLlavaLlamaForCausalLM(AdaLlavaCausalLM, LlavaLlamaForCausalLM):
    """AdaLLaVA on Llama: the published models' class."""

    config_class = AdaLlavaConfig
