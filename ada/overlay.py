"""The overlay's hook implementations: flags, model class, generation, report, chat, server, training."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ada.budget import TimeBudget, read_budget
from ada.config import ADAPTIVE, ADAPTIVE_TYPES, AdaLlavaConfig
from ada.protocols import is_adaptive
from ada.scheduling.planners import PLANNERS
from llava.errors import OptionError
from llava.hookspecs import hookimpl

UNTRAINED = tuple(name for name in PLANNERS if name != "learned")


@hookimpl
def add_arguments(parser: argparse.ArgumentParser, program: str) -> None:
    """Budget flags, for every program that answers."""
    parser._negative_number_matcher = re.compile(r"^-[\d.]")  # "-5ms" is a value, to be refused as one
    group = parser.add_argument_group("latency budget")
    group.add_argument(
        "--latency-budget",
        metavar="BUDGET",
        help="share of the language model's full prefill compute, in (0, 1]: 0.5 or 50%%; or time to first token on "
        "this device: 850ms or 1.2s",
    )
    group.add_argument(
        "--strict-latency-budget",
        action="store_true",
        help="refuse a budget below what the model can reach, instead of running its cheapest plan",
    )
    group.add_argument(
        "--no-auto-calibrate",
        action="store_true",
        help="refuse a budget in time where this device is not calibrated, instead of a short calibration first",
    )
    group.add_argument(
        "--planner",
        choices=list(PLANNERS),
        help="what chooses the heads, neurons and layers that run; even, last and random need no training",
    )
    if program == "model_worker":
        from ada.serve import budget_policy

        budget_policy.add_arguments(parser)


@hookimpl
def model_classes() -> Mapping[str, tuple[type, type]]:
    """The published format's model type, and its like on other decoders."""
    from ada.model.families import ADAPTIVE_MODELS

    return {kind.config_class.model_type: (kind.config_class, kind) for kind in ADAPTIVE_MODELS.values()}


@hookimpl
def prepare_model(model: Any, options: Mapping[str, Any]) -> None:
    """Check the flags against the model; give a plain LLaVA an untrained planner where one is asked for."""
    budget, planner = options.get("latency_budget"), options.get("planner")
    read = None if budget is None else read_budget(budget)
    if isinstance(read, TimeBudget) and options.get("batch_size", 1) > 1:
        raise OptionError(
            f"--batch-size is {options['batch_size']} and --latency-budget {read}: a time holds for one question at a "
            "time; leave --batch-size at 1, or give a share such as 0.5"
        )
    if not is_adaptive(model) and (budget is not None or planner is not None):
        if planner not in UNTRAINED:
            raise _no_scheduler(model)
        from ada.model.families import make_adaptive

        make_adaptive(model)
    if is_adaptive(model):
        _know_times(model, options, wanted=isinstance(read, TimeBudget))


def _know_times(model: Any, options: Mapping[str, Any], wanted: bool) -> None:
    """Let the model have its device's calibration: the stored one, where one fits; where ``wanted``, else a new one."""
    from ada.latency.ready import ready_latency, stored_latency

    if model.latency is None:
        automatic = not options.get("no_auto_calibrate")
        latency = ready_latency(model, automatic) if wanted else stored_latency(model)
        # Programs that answer files go by profile and prompt alone, so that chunks and restarts change nothing.
        model.latency = latency.fixed() if latency is not None and "batch_size" in options else latency


def _no_scheduler(model: Any) -> OptionError:
    return OptionError(
        f"--latency-budget needs a scheduler, and this checkpoint (model_type {model.config.model_type!r}) has none. "
        "Train one with scripts/v1_5/finetune_ada_heads.sh, or pass --planner "
        f"{'|'.join(UNTRAINED)} for an untrained plan"
    )


@hookimpl
def generation_options(model: Any, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """``latency_budget``, ``planner`` and ``strict_latency_budget`` for ``generate``."""
    budget = options.get("latency_budget")
    if not is_adaptive(model):
        if budget is None:
            return {}
        raise _no_scheduler(model)  # a request's budget, on a model that was loaded without one
    return {
        "latency_budget": None if budget is None else read_budget(budget),
        "planner": options.get("planner"),
        "strict_latency_budget": bool(options.get("strict_latency_budget")),
    }


@hookimpl
def describe_generation(model: Any, output: Any, timing: Mapping[str, float]) -> Mapping[str, Any]:
    """The budget's report, the plan, and the line for people."""
    report = getattr(output, "report", None)
    if report is None:
        return {}
    facts = {**report.to_json(), "plan": output.execution_plan.to_json(), "summary": report.summary()}
    if report.expected_ms is None:
        return facts
    measured = timing["time_to_first_token_ms"]
    return {**facts, "measured_ms": measured, "summary": f"{facts['summary']} | measured {measured:.4g} ms"}


@hookimpl
def describe_row(model: Any, output: Any, row: int) -> Mapping[str, Any]:
    """The budget's report as if the row had been asked alone, the plan in short, and the line for people."""
    from ada.model.budget_report import asked_alone

    report = getattr(output, "report", None)
    if report is None:
        return {}
    plan = output.execution_plan
    if isinstance(report, list):
        report, plan = report[row], plan[row]
    report = asked_alone(model, report, plan)
    return {**report.to_json(), "share": plan.share, "plan": plan.to_short_json(), "summary": report.summary()}


@hookimpl
def decoding_batch(model: Any, outputs: Sequence[Any]) -> Any:
    """Rows under their plans; None where no row has one."""
    from ada.execution.mixed_batch import mixed_plan_batch

    if not is_adaptive(model):
        return None
    return mixed_plan_batch(model, [output.execution_plan for output in outputs])


@hookimpl
def chat_command(command: str, argument: str, session: Any) -> str | None:
    """``/budget VALUE`` and ``/plan``."""
    if command == "budget":
        return _set_budget(argument, session)
    if command == "plan":
        return _show_plan(session)
    return None


@hookimpl
def chat_help() -> Mapping[str, str]:
    """What the chat's ``/help`` lists."""
    return {"/budget VALUE": "answer from now on under this budget; alone: show it", "/plan": "draw the last plan"}


@hookimpl
def request_fields() -> Mapping[str, tuple[Any, Any]]:
    """``latency_budget`` and ``latency_budget_policy``."""
    from ada.serve import budget_policy

    return budget_policy.request_fields()


@hookimpl
def fields_of_headers(headers: Mapping[str, str]) -> Mapping[str, Any]:
    """``x-slo-ttft-ms``: the budget as a time to first token."""
    from ada.serve.slo_header import fields_of_headers

    return fields_of_headers(headers)


@hookimpl
def serving_policy(loaded: Any, options: Mapping[str, Any], registry: Any) -> Any:
    """Budgets of a worker's requests, and what load makes of them."""
    from ada.serve.budget_policy import BudgetPolicy

    return BudgetPolicy(loaded, options, registry)


@hookimpl
def demo_parts() -> list[Any]:
    """The web demo's budget slider and plan panel."""
    from ada.serve.demo_panel import BudgetPanel

    return [BudgetPanel()]


@hookimpl
def default_model_path() -> str | None:
    """The bundled model."""
    folder = Path(__file__).parent / "checkpoints" / "shapes-H"
    return str(folder) if folder.is_dir() else None


def _set_budget(argument: str, session: Any) -> str:
    if not argument:
        return f"budget: {session.options.get('latency_budget') or 'none'}"
    read = read_budget(argument)
    text = str(read) if isinstance(read, TimeBudget) else repr(read.fraction)  # every digit
    options = {**session.options, "latency_budget": text}
    prepare_model(model=session.model, options=options)
    session.options.update(options)
    return f"budget: {options['latency_budget']}"


def _show_plan(session: Any) -> str:
    from ada.scheduling.execution_plan import ExecutionPlan
    from ada.scheduling.plan_plot import blocks

    plan = (session.last_metadata or {}).get("plan")
    return "no plan yet: ask something first" if plan is None else blocks(ExecutionPlan.from_json(plan))


@hookimpl
def training_dataclasses() -> list[type]:
    """Flags of ``llava/train/train.py``."""
    from ada.train.arguments import AdaArguments

    return [AdaArguments]


@hookimpl
def prepare_training_config(config: Any, arguments: Mapping[type, Any]) -> None:
    """Make the config AdaLLaVA's where ``--scheduler_type`` is given, or where it is so already."""
    from ada.train.arguments import AdaArguments

    options: AdaArguments = arguments[AdaArguments]
    if options.scheduler_type is None and config.model_type not in ADAPTIVE_TYPES:
        return
    defaults = AdaLlavaConfig(num_hidden_layers=config.num_hidden_layers)
    if config.model_type not in ADAPTIVE_TYPES:
        config.model_type = ADAPTIVE[config.model_type].model_type
        for field in ("num_prefix_layers", "scheduler_type", "scheduler_rank", "token_selecting"):
            setattr(config, field, getattr(defaults, field))
    for field in ("scheduler_type", "num_prefix_layers", "scheduler_rank", "planner", "scheduler_input"):
        value = getattr(options, field)
        if value is not None:
            setattr(config, field, value)


@hookimpl
def prepare_training_model(model: Any, arguments: Mapping[type, Any]) -> None:
    """Say how budgets and plans are drawn, and what is learned from."""
    from ada.train.arguments import AdaArguments

    if model.config.model_type in ADAPTIVE_TYPES:
        model.recipe = arguments[AdaArguments].recipe(model.units)


@hookimpl
def learning_rates(arguments: Mapping[type, Any]) -> Mapping[str, float]:
    """``--scheduler_lr``."""
    from ada.train.arguments import AdaArguments

    rate = arguments[AdaArguments].scheduler_lr
    return {} if rate is None else {"scheduler": rate}


@hookimpl
def training_callbacks(model: Any, arguments: Mapping[type, Any]) -> list[Any]:
    """The schedule of the draws' temperature."""
    from ada.train.arguments import AdaArguments
    from ada.train.recipe import TemperatureSchedule

    start, end = arguments[AdaArguments].temperatures()
    return [] if start == end else [TemperatureSchedule(model.recipe, start, end)]


@hookimpl
def training_inputs(model: Any, seed: int, step: int, first: int) -> Mapping[str, Any]:
    """The random numbers of the batch's budgets and choices."""
    from ada.scheduling.sample_rng import Draws

    return {"draws": Draws(seed, step, first)} if is_adaptive(model) else {}


@hookimpl
def describe_training_step(model: Any, inputs: Mapping[str, Any], outputs: Any) -> Mapping[str, float]:
    """Loss by budget band."""
    from ada.train.metrics import loss_by_band

    if getattr(outputs, "granted_units", None) is None:
        return {}
    return loss_by_band(model.units, outputs)
