"""Implements the shell's hooks: flags, model classes, generation, report, chat, server, training."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ada import options as budget_options
from ada.image_token_options import add_image_token_flags
from llava.hookspecs import hookimpl


@hookimpl
def add_arguments(parser: argparse.ArgumentParser, program: str) -> None:
    """Add budget flags to every program that answers, and the worker's load-adaptive ones.

    A client of a server gets the budget and image tokens alone, as texts that the server reads.
    """
    if program == "test_message":
        group = budget_options.add_budget_flag(parser, read=str)
        add_image_token_flags(group, str, str)
        return
    budget_options.add_flags(parser)
    if program in ("cli", "model_worker"):  # that are asked about the same image again
        from ada.memory.reuse_limit import add_reuse_limit_flag

        add_reuse_limit_flag(parser)
    if program == "model_worker":
        from ada.serve import budget_policy

        budget_policy.add_arguments(parser)


@hookimpl
def model_classes() -> Mapping[str, tuple[type, type]]:
    """Return the published format's model type, and its counterparts on other decoders."""
    from ada.model.families import ADAPTIVE_MODELS

    return {kind.config_class.model_type: (kind.config_class, kind) for kind in ADAPTIVE_MODELS.values()}


@hookimpl
def check_convertible(fields: Mapping[str, Any]) -> str | None:
    """Refuse a checkpoint with a scheduler, which transformers' classes do not have."""
    if "scheduler_type" not in fields:
        return None
    return "transformers' classes have no scheduler, so a model with a latency budget cannot be converted"


@hookimpl
def before_loading(options: Mapping[str, Any], path: str, device: str) -> None:
    """Warn where the model will take more memory than the device has free."""
    from ada.memory.load_warning import warn_of_memory

    warn_of_memory(options, path, device)


@hookimpl
def prepare_model(model: Any, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Check the flags against the model; return the device's calibration as an option."""
    return budget_options.prepare_model(model, options)


@hookimpl
def generation_options(model: Any, options: Mapping[str, Any], tokenizer: Any) -> Mapping[str, Any]:
    """Return budget, planner, TTFT predictor and image tokens for ``generate``."""
    return budget_options.generation_options(model, options, tokenizer)


@hookimpl
def describe_generation(model: Any, output: Any, timing: Mapping[str, float]) -> Mapping[str, Any]:
    """Return the budget's report, the plan, the image tokens that were read, and the line for people."""
    from ada.model.clause_report import measured as measured_clauses
    from ada.model.kept_cells import kept_cells

    report = getattr(output, "report", None)
    if report is None:
        return {}
    report = replace(report, clauses=measured_clauses(report.clauses, timing))
    metadata = {**report.to_json(), "plan": output.execution_plan.to_json(), "summary": report.summary()}
    metadata["image_tokens"] |= kept_cells(model, output)
    if report.ttft_p50_ms is None:
        return metadata
    measured = timing["time_to_first_token_ms"]
    if report.promises_more:
        return {**metadata, "measured_ms": measured}
    return {**metadata, "measured_ms": measured, "summary": f"{metadata['summary']} | measured {measured:.4g} ms"}


@hookimpl
def describe_row(model: Any, output: Any, row: int) -> Mapping[str, Any]:
    """Return the report as if the row had been asked alone, the plan in short, and the line for people."""
    from ada.model.reporting import asked_alone

    report = getattr(output, "report", None)
    if report is None:
        return {}
    plan = output.execution_plan
    if isinstance(report, list):
        report, plan = report[row], plan[row]
    report = asked_alone(model, report, plan, output.ttft_predictor)
    return {**report.to_json(), "share": plan.share, "plan": plan.to_short_json(), "summary": report.summary()}


@hookimpl
def decoding_batch(model: Any, outputs: Sequence[Any], lengths: Sequence[int]) -> Any:
    """Return how rows decode under their plans, and without the image tokens that they left out; None without plans."""
    from ada.execution.mixed_batch import mixed_batch
    from ada.protocols import is_adaptive

    return mixed_batch(model, outputs, lengths) if is_adaptive(model) else None


@hookimpl
def row_decoder(model: Any, slots: int) -> Any:
    """Return the engine's rows of an adaptive model, or transformers' where the engine cannot decode it."""
    from ada.engine.serving import AdaptiveTransformersRows, EngineRowDecoder
    from ada.engine.support import reason_of_model
    from ada.protocols import is_adaptive

    if not is_adaptive(model):
        return None
    return EngineRowDecoder(model, slots) if reason_of_model(model) is None else AdaptiveTransformersRows(model)


@hookimpl
def chat_command(command: str, argument: str, session: Any) -> str | None:
    """Answer ``/budget VALUE``, ``/image-tokens VALUE`` and ``/plan``."""
    from ada.chat_commands import answer_command

    return answer_command(command, argument, session)


@hookimpl
def chat_help() -> Mapping[str, str]:
    """Return what the chat's ``/help`` lists."""
    from ada.chat_commands import HELP

    return HELP


@hookimpl
def request_fields() -> Mapping[str, tuple[Any, Any]]:
    """Return the fields of budgets and of image tokens."""
    from ada.serve import budget_policy

    return budget_policy.request_fields()


@hookimpl
def fields_of_headers(headers: Mapping[str, str]) -> Mapping[str, Any]:
    """Read llm-d's headers for latency: the budget as times."""
    from ada.serve.slo_headers import fields_of_headers

    return fields_of_headers(headers)


@hookimpl
def serving_policy(loaded: Any, options: Mapping[str, Any], registry: Any) -> Any:
    """Return what applies budgets to a worker's requests, scales them by load, and shows what becomes of them."""
    from ada.serve.budget_policy import BudgetPolicy
    from ada.serve.plan_watch import PlanWatch
    from llava.serve.engine.policy import Policies

    return Policies([BudgetPolicy(loaded, options, registry), PlanWatch(loaded, options)])


@hookimpl
def metrics_prefix() -> str:
    """Return the prefix of a worker's metrics."""
    return "adallava:"


@hookimpl
def demo_parts() -> list[Any]:
    """Return the web demo's control of the budget, and its panels about plans and answers."""
    from ada.serve.demo.budget_part import BudgetPart

    return [BudgetPart()]


@hookimpl
def default_model_path() -> str | None:
    """Return a bundled model's folder: SmolLM2's where its language model is on this machine, else the tiny one's."""
    from llava.model.checkpoint.adapter_chain import is_complete

    folders = [Path(__file__).parent / "checkpoints" / name for name in ("smol-H", "shapes-H")]
    return next((str(folder) for folder in folders if folder.is_dir() and is_complete(folder)), None)


@hookimpl
def checkpoint_files() -> Sequence[str]:
    """Return the names of the frontier, by which ``auto`` chooses, and of what promises of quality are kept by."""
    from ada.frontier.store import FILE_NAME as FRONTIER
    from ada.quality.table import FILE_NAME as PROMISES

    return [FRONTIER, PROMISES]


@hookimpl
def training_dataclasses() -> list[type]:
    """Return the dataclass of the training flags."""
    from ada.train.arguments import AdaArguments

    return [AdaArguments]


@hookimpl
def prepare_training_config(config: Any, arguments: Mapping[type, Any]) -> Sequence[str]:
    """Make the config AdaLLaVA's where ``--scheduler_type`` is given, or where it already is; add a token scorer."""
    from ada.train.arguments import AdaArguments
    from ada.train.scorer_training import add_scorer

    arguments[AdaArguments].apply(config)
    return add_scorer(config, arguments)


@hookimpl
def learning_rates(arguments: Mapping[type, Any]) -> Mapping[str, float]:
    """Return the scheduler's own learning rate, ``--scheduler_lr``."""
    from ada.train.arguments import AdaArguments

    rate = arguments[AdaArguments].scheduler_lr
    return {} if rate is None else {"scheduler": rate}


@hookimpl
def training_policy(model: Any, arguments: Mapping[type, Any]) -> Any:
    """Return what draws a run's budgets, plans and image tokens; None for a plain LLaVA that keeps all tokens."""
    from ada.train.arguments import AdaArguments
    from ada.train.policy import policy_of

    return policy_of(model, arguments[AdaArguments])
