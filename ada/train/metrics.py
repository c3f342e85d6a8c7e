"""Computes figures of a training step: the loss by budget band."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from ada.scheduling.units import Units
from llava.constants import IGNORE_INDEX
from llava.model.answer_logits import answer_logits
from llava.train.policy import Figure

BANDS = 4


@torch.no_grad()
def loss_by_band(units: Units, outputs: Any) -> dict[str, Figure]:
    """Return the mean loss of the supervised tokens in each quarter of the reachable budgets, and their number.

    outputs: ``logits`` (B, T, V), or of answers only; ``labels`` (B, T), ``granted_units`` (B,). Bands without a
    supervised token are left out.
    """
    targets = outputs.labels[:, 1:]
    supervised = targets != IGNORE_INDEX
    logits = answer_logits(outputs.logits, outputs.labels).float()
    losses = functional.cross_entropy(logits, targets[supervised], reduction="none")
    row = supervised.nonzero()[:, 0]
    band = (outputs.granted_units * BANDS // (units.tunable + 1)).clamp(max=BANDS - 1)[row]
    figures: dict[str, Figure] = {}
    for index in band.unique().tolist():
        low, high = (units.fraction(-(-edge * (units.tunable + 1) // BANDS)) for edge in (index, index + 1))
        own = losses[band == index]
        figures[f"loss_budget_{low:.2f}_{min(high, 1.0):.2f}"] = own.mean().item(), len(own)
    return figures
