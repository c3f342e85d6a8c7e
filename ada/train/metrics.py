"""Computes figures of a training step: the loss by budget band."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from ada.scheduling.units import Units
from llava.constants import IGNORE_INDEX
from llava.model.answer_logits import answer_logits

BANDS = 4


@torch.no_grad()
def loss_by_band(units: Units, outputs: Any) -> dict[str, float]:
    """Return the mean loss per supervised token of the samples in each quarter of the reachable budgets.

    outputs: ``logits`` (B, T, V), or of answers only; ``labels`` (B, T), ``granted_units`` (B,). Bands without a sample
    are left out.
    """
    targets = outputs.labels[:, 1:]
    supervised = targets != IGNORE_INDEX
    logits = answer_logits(outputs.logits, outputs.labels).float()
    losses = functional.cross_entropy(logits, targets[supervised], reduction="none")
    row = supervised.nonzero()[:, 0]
    band = (outputs.granted_units * BANDS // (units.tunable + 1)).clamp(max=BANDS - 1)[row]
    figures = {}
    for index in band.unique().tolist():
        low, high = (units.fraction(-(-edge * (units.tunable + 1) // BANDS)) for edge in (index, index + 1))
        figures[f"loss_budget_{low:.2f}_{min(high, 1.0):.2f}"] = losses[band == index].mean().item()
    return figures
