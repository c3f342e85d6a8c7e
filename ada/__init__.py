"""Answers with a LLaVA under a latency budget: the overlay's public names, loaded when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ada.budget import LatencyBudget, TimeBudget
    from ada.config import AdaLlavaConfig
    from ada.latency.ttft_predictor import TTFTPredictor
    from ada.model.budget_report import BudgetReport
    from ada.model.families import make_adaptive
    from ada.model.modeling import AdaLlavaLlamaForCausalLM
    from ada.protocols import is_adaptive
    from ada.scheduling.execution_plan import ExecutionPlan, LayerPlan
    from ada.scheduling.scheduler import Scheduler
    from ada.scheduling.units import Units

_MODULES = {
    "AdaLlavaConfig": "ada.config",
    "AdaLlavaLlamaForCausalLM": "ada.model.modeling",
    "BudgetReport": "ada.model.budget_report",
    "ExecutionPlan": "ada.scheduling.execution_plan",
    "LatencyBudget": "ada.budget",
    "LayerPlan": "ada.scheduling.execution_plan",
    "Scheduler": "ada.scheduling.scheduler",
    "TTFTPredictor": "ada.latency.ttft_predictor",
    "TimeBudget": "ada.budget",
    "Units": "ada.scheduling.units",
    "is_adaptive": "ada.protocols",
    "make_adaptive": "ada.model.families",
}

__all__ = [
    "AdaLlavaConfig",
    "AdaLlavaLlamaForCausalLM",
    "BudgetReport",
    "ExecutionPlan",
    "LatencyBudget",
    "LayerPlan",
    "Scheduler",
    "TTFTPredictor",
    "TimeBudget",
    "Units",
    "is_adaptive",
    "make_adaptive",
]


def __getattr__(name: str) -> object:
    """Import a public name's module when it is first used, so that ``import ada`` costs nothing."""
    if name not in _MODULES:
        raise AttributeError(f"module 'ada' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
