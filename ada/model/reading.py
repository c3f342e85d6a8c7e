"""Decides which image tokens of a batch are read: those that enter the decoder, and those of its later layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ada.budget import Budget
from ada.execution.call_state import Execution
from ada.execution.late_tokens import LateTokens
from ada.frontier.choice import AutoImageTokens, Prompt, prompts_of
from ada.frontier.share import PrefillShare, PromptTokens
from ada.image_tokens.amount import ALL_IMAGE_TOKENS, AUTO, ImageTokens, ImageTokensLike, image_tokens_of_rows
from ada.image_tokens.encoded_images import images_of
from ada.image_tokens.encoding_cost import with_encoding_cost
from ada.image_tokens.kept import kept_indices, position_gaps
from ada.image_tokens.late_selectors import late_selector
from ada.image_tokens.selection import (
    RowTokens,
    as_selected,
    check_columns_known,
    for_selectors,
    row_tokens,
    with_selected_tokens,
)
from ada.image_tokens.selector_names import SelectorNames
from ada.latency.latency_model import NO_TIME_ELAPSED, Elapsed
from ada.latency.ttft_predictor import TTFTPredictor
from ada.scheduling.latency_token import last_position
from ada.scheduling.planners import planner_name
from ada.scheduling.units import Units
from llava.model.multimodal.embedded_batch import EmbeddedBatch


@dataclass(frozen=True)
class Reading:
    """What of a batch's prompts is read.

    batch: the prompts, without the image tokens that do not enter the decoder; rows: how many there are and stay.
    prompts: positions of each row's prompt, latency token included, without padding and a given answer. num_images:
    that the vision tower runs on for each row, crops counted: not those whose features were known. share: counts what
    of a prefill they take. late: the selector of the tokens that later layers read, None where they read all that
    enter.
    """

    batch: EmbeddedBatch
    rows: Sequence[RowTokens]
    prompts: Sequence[PromptTokens]
    num_images: Sequence[int]
    share: PrefillShare
    late: str | None = None

    def knowing(self, length: int) -> Reading:
        """Return the same, of one prompt whose first ``length`` positions the prefix layers need not run on."""
        return replace(self, prompts=[replace(prompt, known=length) for prompt in self.prompts]) if length else self

    def late_tokens(self, model: Any, batch: EmbeddedBatch, token_position: torch.Tensor | None) -> LateTokens | None:
        """Return what chooses later layers' tokens in one call; None where they read all that enter.

        batch: the prompts with their latency tokens, whose columns are ``token_position`` (B,), None without them.
        """
        if self.late is None or batch.image_spans is None:
            return None
        first_layer, selector = late_selector(self.late, model, token_position, last_position(batch))
        return LateTokens(first_layer, batch.image_spans, [row.late for row in self.rows], selector)

    def describe(self, output: Any, batch: EmbeddedBatch, execution: Execution) -> None:
        """Set on a generation's ``output`` what decoding in a joined batch and drawings of what was read need.

        batch: the prompts with their latency tokens, padded on the left; execution: the call's, which has run.
        """
        output.late_tokens, output.position_gaps = execution.late_tokens, position_gaps(batch)
        output.masked_layers = execution.masked_layers
        output.kept_indices = kept_indices(batch, [row.widths or row.all for row in self.rows])


def share_of(model: Any, late: str | None, min_units: int = 0) -> PrefillShare:
    """Return what counts shares of a model's prefill, where ``min_units`` tunable units always run.

    late: the selector of later layers' tokens, None where they read all that enter.
    """
    if late is None:
        return PrefillShare.of(model.config, model.units, min_units=min_units)
    column = None if model.scheduler is None else torch.zeros(1, dtype=torch.long)
    return PrefillShare.of(model.config, model.units, late_selector(late, model, column)[0], min_units)


class ReadsFewerTokens:
    """Mixed in before an adaptive model: leaves image tokens out of prompts."""

    config: Any
    units: Units
    scheduler: Any

    def read_tokens(
        self,
        batch: EmbeddedBatch,
        image_tokens: ImageTokensLike | Sequence[ImageTokensLike] | None,
        token_selector: str | None,
        budgets: Sequence[Budget | None],
        planner: str | None = None,
        padding_side: str = "left",
        ttft_predictor: TTFTPredictor | None = None,
        elapsed: Elapsed = NO_TIME_ELAPSED,
        known_images: int = 0,
    ) -> Reading:
        """Return what of ``batch`` is read; the arguments are as ``generate`` takes them.

        Rows are padded on ``padding_side``. known_images: of one row, whose features were known. Raises OptionError for
        amounts or selectors that the model cannot follow.
        """
        names = SelectorNames.of(token_selector, self)
        prompts = prompts_of(batch, self.scheduler is not None)
        if known_images and len(prompts) == 1:
            prompts = [replace(prompts[0], num_images=max(0, prompts[0].num_images - known_images))]
        amounts = self._amounts(batch, image_tokens, token_selector, budgets)
        given, share = self.decided_amounts(prompts, amounts, budgets, token_selector, planner, ttft_predictor, elapsed)
        rows = row_tokens(batch, for_selectors(given, names))
        batch = with_selected_tokens(batch, rows, names.front, padding_side)
        rows = with_encoding_cost(self, as_selected(batch, rows), images_of(batch), names.front)
        late = names.late if any(row.late != row.front for row in rows) else None
        counts = [
            PromptTokens.with_images(prompt.others, sum(row.all), sum(row.front), sum(row.late))
            for prompt, row in zip(prompts, rows, strict=True)
        ]
        return Reading(batch, rows, counts, [prompt.num_images for prompt in prompts], share, late)

    def decided_amounts(
        self,
        prompts: Sequence[Prompt],
        amounts: Sequence[ImageTokens],
        budgets: Sequence[Budget | None],
        token_selector: str | None = None,
        planner: str | None = None,
        ttft_predictor: TTFTPredictor | None = None,
        elapsed: Elapsed = NO_TIME_ELAPSED,
    ) -> tuple[list[ImageTokens], PrefillShare]:
        """Return what prompts read, ``auto`` decided by their budgets, and what counts shares of their prefill."""
        names = SelectorNames.of(token_selector, self)
        chooses_late = names.late == "learned" or names.late in (token_selector or "")
        late = names.late if chooses_late or any(amount.late for amount in amounts) else None
        share = share_of(self, late, self._min_units(planner, amounts))
        given = [amount if prompt.images else ALL_IMAGE_TOKENS for amount, prompt in zip(amounts, prompts, strict=True)]
        if any(amount.auto for amount in given):
            auto = AutoImageTokens.of(self.config, share, ttft_predictor, chooses_late, names.late_alone)
            given = [
                auto.amount(prompt, budget, elapsed) if amount.auto else amount
                for amount, prompt, budget in zip(given, prompts, budgets, strict=True)
            ]
        return given, share

    def default_amount(self, budget: Budget | None, token_selector: str | None = None) -> ImageTokens:
        """Return what of an image is read where nothing says so: ``auto`` under a budget, where trained for it.

        token_selector: as ``generate`` takes it; with shrink all is read, as a budget is shared out too late for it.
        """
        trained = getattr(self.config, "image_token_dropout", None) is not None
        decides = trained and budget is not None and not SelectorNames.of(token_selector, self).shrinks
        return AUTO if decides else ALL_IMAGE_TOKENS

    def _min_units(self, planner: str | None, amounts: Sequence[ImageTokens]) -> int:
        """Tunable units that always run: all, where nothing plans them and image tokens pay for a budget instead."""
        plans = self.scheduler is not None or planner_name(self.config, planner) != "learned"
        return 0 if plans or all(amount == ALL_IMAGE_TOKENS for amount in amounts) else self.units.tunable

    def _amounts(
        self,
        batch: EmbeddedBatch,
        image_tokens: ImageTokensLike | Sequence[ImageTokensLike] | None,
        token_selector: str | None,
        budgets: Sequence[Budget | None],
    ) -> Sequence[ImageTokens]:
        """The rows' amounts, or their defaults."""
        if image_tokens is None:
            known = batch.image_spans is not None
            return [self.default_amount(budget, token_selector) if known else ALL_IMAGE_TOKENS for budget in budgets]
        amounts = image_tokens_of_rows(image_tokens, len(batch.embeds))
        check_columns_known(batch, amounts)
        return amounts
