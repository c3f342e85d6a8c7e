"""Grants units under the budgets of a batch's rows, for ``forward`` and ``generate``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ada.budget import Budget, BudgetLike, budgets_of_rows
from ada.frontier.share import PrefillShare, PromptTokens
from ada.latency.grant import granted_units
from ada.latency.latency_model import NO_TIME_ELAPSED, Elapsed
from ada.latency.ttft_predictor import TTFTPredictor
from ada.model.reading import Reading
from ada.scheduling.sample_rng import Draws
from ada.scheduling.units import Units


class GrantsUnits:
    """Mixed in before an adaptive model: turns budgets into units."""

    config: Any
    units: Units
    scheduler: Any
    training: bool

    def grant(
        self,
        budget: BudgetLike | Sequence[BudgetLike | None] | None,
        rows: int,
        num_tokens: int = 0,
        num_images: Sequence[int] | None = None,
        strict: bool = False,
        elapsed: Elapsed = NO_TIME_ELAPSED,
        ttft_predictor: TTFTPredictor | None = None,
    ) -> torch.Tensor:
        """Return tunable units (rows,), int64 on the CPU, under one budget or one a row; all where none is given.

        All image tokens are read, so shares of the prefill are fractions of units.

        num_tokens: positions of the prompt without the latency token, and num_images: images of each row, which a time
        budget needs; the others as ``ada.latency.grant.granted_units`` takes them.
        """
        width = num_tokens + (self.scheduler is not None)  # and the latency token
        share, tokens = PrefillShare.of(self.config, self.units), PromptTokens.all_of(max(1, width))
        units = [
            granted_units(share, ttft_predictor, one, tokens, images, strict, elapsed)
            for one, images in zip(budgets_of_rows(budget, rows), num_images or [0] * rows, strict=True)
        ]
        return torch.tensor(units)

    def grant_reading(
        self,
        reading: Reading,
        budgets: Sequence[Budget | None],
        ttft_predictor: TTFTPredictor | None = None,
        strict: bool = False,
        elapsed: Elapsed = NO_TIME_ELAPSED,
    ) -> torch.Tensor:
        """Return tunable units (rows,), int64 on the CPU, of prompts as they are read, under a budget a row."""
        rows = zip(budgets, reading.prompts, reading.num_images, strict=True)
        units = [
            granted_units(reading.share, ttft_predictor, budget, tokens, images, strict, elapsed)
            for budget, tokens, images in rows
        ]
        return torch.tensor(units)

    def _granted_in_forward(
        self, reading: Reading, budgets: Sequence[Budget | None], predictor: TTFTPredictor | None
    ) -> torch.Tensor:
        """Units (B,) under ``budgets``; in training without any, random ones on the whole grid."""
        if self.training and all(budget is None for budget in budgets):
            return Draws.at_random().integers(0, self.units.tunable, len(budgets))
        return self.grant_reading(reading, budgets, predictor)
