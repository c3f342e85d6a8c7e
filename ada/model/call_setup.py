"""Sets up one call of ``generate``: what of its prompts is read, the units that are granted, and what runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ada.budget import Budget
from ada.cost.flops import Flops
from ada.execution.call_state import OnPlan
from ada.image_tokens.amount import ImageTokensLike
from ada.latency.call_clock import CallClock
from ada.latency.grant import workload_of
from ada.latency.latency_model import NO_TIME_ELAPSED, Elapsed
from ada.latency.ttft_predictor import TTFTPredictor
from ada.model.reporting import describe
from ada.quality.cascade import Begun, Cascade
from ada.quality.quality_report import QualityReport
from ada.reuse.call_reuse import CallReuse
from llava.model.multimodal.embedded_batch import EmbeddedBatch


@dataclass(frozen=True)
class CallSetup:
    """Settings of a call, as ``generate`` takes them; call: its clock, None without one.

    in_engine: whether the engine decodes, which alone uses what is known of a prompt.
    """

    budgets: Sequence[Budget | None]
    planner: str | None = None
    strict: bool = False
    predictor: TTFTPredictor | None = None
    image_tokens: ImageTokensLike | Sequence[ImageTokensLike] | None = None
    token_selector: str | None = None
    granted_units: torch.Tensor | None = None
    reuse: CallReuse | None = None
    call: CallClock | None = None
    on_plan: OnPlan | None = None
    in_engine: bool = True

    def for_full_model(self) -> CallSetup:
        """Return the setup of the full model's answer to the same prompt, on what is known of it by then."""
        reuse = None if self.reuse is None else self.reuse.of_second_reading()
        return replace(self, budgets=[None], image_tokens="all", reuse=reuse)

    def first_token_ms(self, begun: Begun) -> float:
        """Return the predicted time to the first token of one row; 0.0 without a prediction."""
        if self.predictor is None or len(self.budgets) > 1:
            return 0.0
        reading, _, execution = begun
        asked = workload_of(reading.share, reading.prompts[0], reading.num_images[0], int(execution.granted[0]))
        return self.predictor.first_token_ms(asked)

    @property
    def elapsed(self) -> Elapsed:
        """What of a time budget has passed."""
        return NO_TIME_ELAPSED if self.call is None else self.call.elapsed

    def begin(self, model: Any, batch: EmbeddedBatch) -> Begun:
        """Read embedded prompts: choose their tokens, grant units, insert latency tokens, set up what runs."""
        reading = model.read_tokens(
            batch,
            self.image_tokens,
            self.token_selector,
            self.budgets,
            self.planner,
            ttft_predictor=self.predictor,
            elapsed=self.elapsed,
            known_images=0 if self.reuse is None else self.reuse.known_crops,
        )
        if self.reuse is not None and self.in_engine and reading.late is None:
            self.reuse.find_prompt(reading.batch, model.scheduler is not None)
            reading = reading.knowing(self.reuse.length)

        def grant(strict: bool = False) -> torch.Tensor:
            if self.granted_units is not None:
                return self.granted_units.cpu()
            granted: torch.Tensor = model.grant_reading(reading, self.budgets, self.predictor, strict, self.elapsed)
            return granted

        def grant_again(computed: torch.Tensor) -> torch.Tensor:
            self.call.plan_is_due(computed)  # type: ignore[union-attr]
            return grant()

        on_plan_due = None if self.call is None else grant_again
        batch, execution = model.begin(
            reading.batch,
            grant(self.strict),
            self.planner,
            on_plan_due=on_plan_due,
            reading=reading,
            on_plan=self.on_plan,
        )
        return reading, batch, execution

    def learn(self, begun: Begun) -> None:
        """Let the predictor learn from a call of one row of which nothing was known before."""
        reading, batch, execution = begun
        known = self.reuse is not None and self.reuse.used
        if len(self.budgets) > 1 or self.call is None or self.predictor is None or known:
            return
        ran = workload_of(reading.share, reading.prompts[0], batch.images_per_row[0], int(execution.granted[0]))
        self.call.correct(self.predictor, ran)


def describe_call(
    output: Any, model: Any, setup: CallSetup, begun: Begun, cascade: Cascade | None, about: Mapping[str, Any]
) -> None:
    """Set plan, report and what drawings need on a generation's ``output``; about: as ``describe`` takes it.

    begun: what the call began with. Under a promise of quality the report is on what answered, and says what a refused
    cheap try took.
    """
    refused = 0
    budgets = setup.budgets
    reuse = setup.reuse
    if cascade is not None and cascade.second is not None:
        reading, batch, execution = begun
        describe(output, model, budgets, execution, batch, setup.predictor, reading, reuse=reuse, **about)
        refused, begun, budgets = _in_vain(output.report.prefill_flops), cascade.second, [None]
        reuse = cascade.reuse
    reading, batch, execution = begun
    reading.describe(output, batch, execution)
    describe(output, model, budgets, execution, batch, setup.predictor, reading, reuse=reuse, **about)
    if cascade is not None:
        quality = QualityReport(
            cascade.promise.disagreement, cascade.stage, cascade.margin, cascade.promise.threshold, refused
        )
        output.report = replace(output.report, quality=quality)


def _in_vain(refused: Flops) -> int:
    """Count the operations of a refused try that the answer does not use: it takes the images' features from it."""
    return sum(count for part, count in refused.items() if part not in ("vision_tower", "projector"))
