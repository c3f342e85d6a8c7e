"""Shows clients what budgets can reach on a worker, and the plan of an answer as it is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ada.protocols import is_adaptive
from ada.scheduling.execution_plan import ExecutionPlan
from ada.serve.reachable import reachable
from llava.model.loaded_model import LoadedModel
from llava.serve.engine.policy import Publish, ServingPolicy


class PlanWatch(ServingPolicy):
    """What of budgets is known before an answer is finished. ``defaults``: the worker's flags."""

    def __init__(self, loaded: LoadedModel, defaults: Mapping[str, Any]) -> None:
        self.model, self.defaults = loaded.model, defaults
        self.predictor = loaded.options.get("ttft_predictor")

    def watch(self, publish: Publish) -> Mapping[str, Any]:
        """Publish ``latency_budget`` with the plan, as it is made and whenever it shrinks."""

        def on_plan(plans: Sequence[ExecutionPlan]) -> None:
            publish({"latency_budget": {"plan": plans[0].to_json()}})

        return {"on_plan": on_plan}

    def state(self) -> Mapping[str, Any]:
        """Return ``latency_budget``: what budgets can reach here; nothing where the model takes none."""
        if not is_adaptive(self.model):
            return {}
        return {"latency_budget": reachable(self.model, self.defaults, self.predictor)}
