"""Latency budgets in a server: the request's fields, what load leaves of them, and what the reply says."""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from prometheus_client import CollectorRegistry
from pydantic import Field, StrictFloat

from ada.budget import Budget, LatencyBudget, TimeBudget, read_budget
from ada.frontier.share import PrefillShare, PromptTokens
from ada.image_token_options import image_tokens_of, reads_fewer
from ada.latency.grant import OutOfReach, is_within, refuse_unreachable
from ada.options import budget_of, check_planned
from ada.protocols import AdaptiveModel, is_adaptive
from ada.scheduling.execution_plan import ExecutionPlan
from ada.serve import image_token_fields, quality_field
from ada.serve.budget_metrics import BudgetMetrics
from ada.serve.budget_reply import budget_report
from ada.serve.load_adaptive import LoadAdaptiveBudget
from ada.serve.load_controller import LoadController
from ada.serve.reachable import reachable
from ada.serve.time_promise import time_promise
from llava.errors import OptionError
from llava.flags import add_dataclass_flags, from_flags
from llava.model.loaded_model import LoadedModel
from llava.protocols import LlavaModel
from llava.serve.engine.policy import ServingPolicy
from llava.serve.engine.promise import Promise
from llava.serve.engine.request import Finished
from llava.serve.engine.request_queue import Load
from llava.serve.protocol.errors import RequestFailure
from llava.serve.worker.metrics import metrics_prefix

log = logging.getLogger(__name__)

STRICT = "strict"
FULL = LatencyBudget(1.0)


def request_fields() -> dict[str, tuple[Any, Any]]:
    """Return what a request may have in addition: a budget, its policy, and what the image tokens are."""
    budget = Field(
        default=None,
        description="share of the decoder's prefill compute, in (0, 1]: 0.5 or '50%'; or time to first token on the "
        "worker's device, the queue included: '850ms'; or clauses, to the first token, a later one and the end: "
        "'ttft=300ms,tpot=20ms,total=2s', or an object of these names, in milliseconds",
    )
    policy = Field(
        default="adaptive",
        description="'adaptive': may be granted less under load; 'strict': is granted what it asks, however long "
        "it waits, and refused where the model cannot keep to it",
    )
    return {
        "latency_budget": (StrictFloat | str | dict[str, StrictFloat | str] | None, budget),
        "latency_budget_policy": (Literal["adaptive", "strict"], policy),
        "reuse": (bool, Field(default=True, description="false: reads all of the prompt anew, to compare times")),
        **quality_field.request_fields(),
        **image_token_fields.request_fields(),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the worker's flags of load-adaptive budgets."""
    add_dataclass_flags(parser, LoadController)


def load_controller_from(options: Mapping[str, Any], model: LlavaModel) -> LoadController | None:
    """Return the load controller that the flags ask for, or None where they ask for none.

    Its minimum is raised to the minimum that the model can reach: of an image and a short question, where image tokens
    may be left out. Raises ``OptionError``.
    """
    if options.get("adaptive_budget") is None:
        return None
    controller = from_flags(LoadController, options)
    if not is_adaptive(model):
        raise OptionError(
            "--adaptive-budget needs a model that takes latency budgets; give a checkpoint with a scheduler, or "
            "--planner even|last|random"
        )
    minimum = model.units.fraction(0)
    if not _reads_all(model, options):
        minimum, _ = reachable(model, options, None)["budgets"][0]
    if controller.min_scale < minimum:
        log.warning(
            "--adaptive-budget is %g, below this model's minimum of %.3g, which is used instead",
            controller.min_scale,
            minimum,
        )
        controller = replace(controller, min_scale=minimum)
    return controller


def _reads_all(model: AdaptiveModel, options: Mapping[str, Any]) -> bool:
    """Whether all image tokens are read for certain; what fewer of them reach depends on the prompt."""
    trained = getattr(model.config, "image_token_dropout", None) is not None
    return not (reads_fewer(options) or (trained and image_tokens_of(options) is None))


class BudgetPolicy(ServingPolicy):
    """Budgets of one worker. ``defaults``: the worker's flags; a request's fields come first."""

    def __init__(self, loaded: LoadedModel, defaults: Mapping[str, Any], registry: CollectorRegistry) -> None:
        self.model: Any = loaded.model  # an AdaptiveModel wherever a budget was accepted
        self.defaults = defaults
        self.default_budget = budget_of(defaults)
        self.predictor = loaded.options.get("ttft_predictor")  # thread-safe: it learns from every request
        self.reuse = loaded.options.get("reuse")
        controller = load_controller_from(defaults, loaded.model)
        self.adaptive = None if controller is None else LoadAdaptiveBudget(controller)
        self.metrics = BudgetMetrics(registry, loaded.name, metrics_prefix(defaults), self._multiplier)

    def _multiplier(self) -> float:
        return 1.0 if self.adaptive is None else self.adaptive.current()

    def check(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Parse a request's budget and image tokens; return them by their fields' names.

        Raises OptionError for what is malformed or what this model cannot follow, and, where the request is strict, for
        a budget that it cannot reach.
        """
        given = fields.get("latency_budget")
        if not is_adaptive(self.model):
            given = None if given is None or read_budget(given) == FULL else given  # which every model follows
        if given is not None and not is_adaptive(self.model):
            raise OptionError(
                "latency_budget was given, but the model of this worker has no scheduler; ask without, or start the "
                "worker with --planner even|last|random, or with --image-tokens auto"
            )
        promise = quality_field.promise_of(self.model, fields, self.defaults)
        requested = self.default_budget if promise is None else None
        if given is not None:
            requested = read_budget(given)
        if isinstance(requested, TimeBudget) and self.predictor is None:  # measured among requests, it would be wrong
            raise OptionError(
                f"latency_budget is {requested}, and this worker's device is not calibrated; run python -m "
                "ada.calibrate there and start the worker again, or ask for a share such as 0.5"
            )
        bound = requested if self.adaptive is None else True  # under load, every request may get a budget
        checked = {
            "latency_budget": requested,
            "max_disagreement": promise,
            **image_token_fields.check_fields(self.model, fields, self.defaults, bound),
        }
        if requested is not None:
            check_planned(self.model, {**checked, "planner": self.defaults.get("planner")})
        if isinstance(requested, LatencyBudget) and self._strict(fields) and _reads_all(self.model, checked):
            share = PrefillShare.of(self.model.config, self.model.units)
            refuse_unreachable(share, requested, PromptTokens.all_of(1))
        return checked

    def _strict(self, fields: Mapping[str, Any]) -> bool:
        return fields.get("latency_budget_policy") == STRICT or bool(self.defaults.get("strict_latency_budget"))

    def promise(self, fields: Mapping[str, Any], prompt_tokens: int, max_new_tokens: int) -> Promise | None:
        """Return what a budget in time promises, where budgets follow the load; otherwise it runs, however late."""
        if self.adaptive is None or self.predictor is None:
            return None
        settings = {**fields, "planner": self.defaults.get("planner")}
        return time_promise(self.model, self.predictor, settings, prompt_tokens, max_new_tokens)

    def grant(self, fields: Mapping[str, Any], load: Load) -> Mapping[str, Any]:
        """Return the options of a generation: the requested budget, lowered under load where that is allowed.

        Of a time, what waiting has left counts, since clients measure from their request; and what those that wait
        leave of it, too.
        """
        requested: Budget | None = fields.get("latency_budget")
        promise = fields.get("max_disagreement")
        left = requested.less(1000 * load.elapsed_s) if isinstance(requested, TimeBudget) else requested
        options = {
            "latency_budget": left,
            "waited_ms": 1000 * load.elapsed_s,
            "planner": self.defaults.get("planner"),
            "strict_latency_budget": self._strict(fields),
            "ttft_predictor": self.predictor,
            "reuse": self.reuse if fields.get("reuse", True) else None,
            "max_disagreement": promise,
            **{name: fields.get(name) if promise is None else None for name in image_token_fields.NAMES},
        }
        if self.adaptive is None or promise is not None:
            return options
        multiplier = self.adaptive.update(load)
        if fields.get("latency_budget_policy") == STRICT:
            return options
        if isinstance(left, TimeBudget):
            shared = self._shared(left, load)
            # What load takes is not the client's, and is no reason to refuse what is in time for it.
            strict = options["strict_latency_budget"] and shared is left
            return {**options, "latency_budget": shared, "strict_latency_budget": strict}
        if multiplier >= 1:
            return options
        fraction = 1.0 if left is None else left.fraction
        allowed = self.adaptive.controller.granted(fraction, multiplier)
        if options["strict_latency_budget"]:  # load is no reason to refuse a prompt without tokens to leave out
            allowed = max(allowed, min(fraction, self.model.units.fraction(0)))
        if allowed < fraction:
            self.metrics.downgrades.inc()
            return {**options, "latency_budget": LatencyBudget(allowed), "load_multiplier": multiplier}
        return options

    def _shared(self, left: TimeBudget, load: Load) -> TimeBudget:
        """What a request may take of the time that it has left, so that those that wait can keep their promises."""
        first_ms = 1000 * load.first_token_s
        if first_ms >= min(ms for ms in (left.milliseconds, left.total_ms, math.inf) if ms is not None):
            return left
        self.metrics.downgrades.inc()
        return replace(left, milliseconds=first_ms, text=None)

    def failure(self, fields: Mapping[str, Any], error: BaseException) -> BaseException:
        """Return the refusal of a strict time as it was requested: 503 where only the wait has put it out of reach."""
        requested = fields.get("latency_budget")
        if not isinstance(error, OutOfReach) or not isinstance(requested, TimeBudget):
            return error
        if not is_within(error.minimum, requested):
            return OutOfReach(requested, error.minimum)
        message = (
            f"the promised time does not suffice any more: latency_budget is {requested}, and the wait has left less "
            f"than the {error.shown} that this prompt takes at the minimum; give it more time, or ask again later"
        )
        return RequestFailure(503, "promise_out_of_reach", message, retry_after=1)

    def reply(self, fields: Mapping[str, Any], finished: Finished) -> Mapping[str, Any]:
        """Return ``latency_budget``, what was requested, allowed, granted and run, and ``image_tokens``."""
        metadata = finished.answer.metadata
        if "plan" not in metadata:
            return {}
        budget = budget_report(self.model, fields, finished)
        self._observe_image_tokens(metadata)
        self.metrics.granted.observe(metadata["granted"])
        self.metrics.cost.observe(ExecutionPlan.from_json(metadata["plan"]).share)
        if not budget["met"]:
            self.metrics.violations.inc()
        return {"latency_budget": budget, "image_tokens": metadata["image_tokens"]}

    def _observe_image_tokens(self, metadata: Mapping[str, Any]) -> None:
        share = image_token_fields.kept_share(metadata)
        if share is not None:
            self.metrics.image_tokens.observe(share)
