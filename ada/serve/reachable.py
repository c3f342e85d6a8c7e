"""Says what budgets can reach on a worker, and what they take on its device, for a typical question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ada.budget import LatencyBudget
from ada.frontier.choice import Prompt
from ada.frontier.share import PromptTokens
from ada.image_token_options import image_tokens_of
from ada.latency.design import image_tokens_of as tokens_of_an_image
from ada.latency.grant import granted_units, workload_of
from ada.latency.ttft_predictor import TTFTPredictor
from ada.protocols import AdaptiveModel

TEXT_TOKENS = 32  # of a typical question, with the template around it
STEPS = 8  # between the cheapest plan and the full model
CHEAPEST = LatencyBudget(1e-6)


def reachable(model: AdaptiveModel, options: Mapping[str, Any], predictor: TTFTPredictor | None) -> dict[str, Any]:
    """Return JSON-ready what budgets from the cheapest plan's up to 1 come to, for one image and ``TEXT_TOKENS``.

    options: the worker's flags by name. ``budgets`` has a share of the prefill, rising, and the predicted 95th
    percentile of the time to first token in milliseconds under it, None where the device is not calibrated; the last
    one is the full model's. ``layers``, ``prefix_layers`` and ``switches`` say what there is to plan.
    """
    tokens, units = tokens_of_an_image(model), model.units
    prompt = Prompt(TEXT_TOKENS + (model.scheduler is not None), (tokens,) if tokens else (), int(tokens > 0))

    def reach(budget: LatencyBudget | None) -> tuple[float, float | None]:
        selector, planner = options.get("token_selector"), options.get("planner")
        amount = image_tokens_of(options) or model.default_amount(budget, selector)
        [amount], share = model.decided_amounts([prompt], [amount], [budget], selector, planner, predictor)
        read = PromptTokens.under(amount, prompt.others, prompt.images)
        granted = granted_units(share, predictor, budget, read, prompt.num_images)
        workload = workload_of(share, read, prompt.num_images, granted)
        ms = None if predictor is None else round(predictor.first_token_ms(workload), 1)
        return share.of_prefill(read, granted), ms

    minimum, min_ms = reach(CHEAPEST)
    shares = [minimum + (1 - minimum) * step / STEPS for step in range(1, STEPS)]
    between = [(round(share, 4), reach(LatencyBudget(share))[1]) for share in shares]
    return {
        "layers": units.num_layers,
        "prefix_layers": units.num_prefix_layers,
        "switches": units.num_switches,
        "budgets": [(round(minimum, 4), min_ms), *between, (1.0, reach(None)[1])],
    }
