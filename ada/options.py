"""Turns a program's flags, or a request's fields, into what ``generate`` takes: budget, planner, image tokens."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from typing import Any

from ada.budget import Budget, TimeBudget, budget_flag, read_budget
from ada.image_token_options import (
    add_image_token_flags,
    check_auto,
    check_selector,
    image_tokens_of,
    names_tokens,
    reads_fewer,
)
from ada.latency.sentence_ends import sentence_ends
from ada.memory.narrow_limit import add_narrow_limit_flag, narrow_limit_of
from ada.memory.reuse_limit import reuse_limit_of
from ada.protocols import AdaptiveModel, is_adaptive
from ada.quality.disagreement import read_disagreement
from ada.reuse.cache import ReuseCache
from ada.scheduling.planners import PLANNERS
from llava.errors import OptionError
from llava.protocols import LlavaModel

UNTRAINED = tuple(name for name in PLANNERS if name != "learned")


def add_budget_flag(
    parser: argparse.ArgumentParser, read: Callable[[str], object] = budget_flag
) -> argparse._ArgumentGroup:
    """Add ``--latency-budget``, whose text ``read`` turns into its value; return its group."""
    parser._negative_number_matcher = re.compile(r"^-[\d.]")  # "-5ms" is a value, to be refused as one
    group = parser.add_argument_group("latency budget")
    group.add_argument(
        "--latency-budget",
        type=read,
        metavar="BUDGET",
        help="share of the language model's full prefill compute, in (0, 1]: 0.5 or 50%%; or time to first token on "
        "this device: 850ms or 1.2s; or clauses, to the first token, a later one, and the end: "
        "ttft=300ms,tpot=20ms,total=2s",
    )
    return group


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a program that answers."""
    group = add_budget_flag(parser)
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
    group.add_argument(
        "--max-disagreement",
        type=disagreement_flag,
        metavar="SHARE",
        help="promise of quality in place of a budget: a cheap plan answers where it is sure, else the full model, so "
        "that at most this share of answers, such as 2%%, differ from the full model's; measured by ada.eval.promise",
    )
    add_image_token_flags(group)
    add_narrow_limit_flag(group)


def disagreement_flag(text: str) -> float:
    """Read the flag ``--max-disagreement``, as argparse's ``type``."""
    try:
        return read_disagreement(text)
    except OptionError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("--max-disagreement is ")) from None


def budget_of(options: Mapping[str, Any]) -> Budget | None:
    """Return the options' ``latency_budget``; a value that was read before is returned as it is.

    ``latency`` is the published code's name for it, in the object that a script passes to ``eval_model``.
    """
    budget = options.get("latency_budget")
    budget = options.get("latency") if budget is None else budget
    return None if budget is None else read_budget(budget)


def prepare_model(model: LlavaModel, options: Mapping[str, Any], reads_frontier: bool = True) -> dict[str, Any]:
    """Check the flags against the model; make a plain LLaVA adaptive for an untrained planner, or for image tokens.

    reads_frontier: whether a frontier of other weights is refused; the program that measures one reads none. Returns
    options to add: ``ttft_predictor``, where this device is calibrated for the model, and ``reuse``, where the program
    keeps what it computes of prompts. Where the budget is a time and the device is not calibrated, it is now. Raises
    OptionError for flags that the model cannot follow.
    """
    budget, planner = budget_of(options), options.get("planner")
    by_time = isinstance(budget, TimeBudget)
    if by_time and options.get("batch_size", 1) > 1:
        raise OptionError(
            f"--batch-size is {options['batch_size']} and --latency-budget {budget}: a time holds for one question at "
            "a time; leave --batch-size at 1, or give a share such as 0.5"
        )
    wanted = budget is not None or planner is not None or names_tokens(options)
    limit = narrow_limit_of(options)
    if not is_adaptive(model) and wanted:
        check_planned(model, options)
        from ada.model.families import make_adaptive

        # Without a planner nothing chooses among units: all layers are prefix layers, and tokens pay for all.
        make_adaptive(model, num_prefix_layers=None if planner in UNTRAINED else model.config.num_hidden_layers)
    if options.get("max_disagreement") is not None:
        _check_promise(model, options)
    if is_adaptive(model) and limit is not None:
        model.narrow_cache.max_bytes = limit
    if is_adaptive(model) and wanted:
        check_planned(model, options)
        check_selector(model, options)
        if "adaptive_budget" not in options:  # a worker's requests bring budgets and images
            images = options.get("image_file", [None])
            check_auto(image_tokens_of(options), budget, len(images or []))
    if is_adaptive(model) and reads_frontier and (wanted or "adaptive_budget" in options):  # a worker's /ready reads it
        from ada.frontier.store import frontier_of

        frontier_of(model.config)  # a table of other weights is refused as a program starts, not by a question
    if not is_adaptive(model):
        return {}
    memory = reuse_limit_of(options, model.device)
    kept = options.get("reuse") is not None  # a chat's options are prepared again as they change
    reuse = {"reuse": ReuseCache(memory)} if memory and not kept else {}
    return {**_calibrated(model, options, needed=by_time), **reuse}


def _check_promise(model: LlavaModel, options: Mapping[str, Any]) -> None:
    """Raise OptionError for a promise of quality that the model cannot keep."""
    from ada.quality.cascade import check_planner
    from ada.quality.table import promises_of

    if not is_adaptive(model):
        raise OptionError(
            f"--max-disagreement is {options['max_disagreement']:g}, and this checkpoint (model_type "
            f"{model.config.model_type!r}) has no cheaper plans to answer under; leave it out, or open one with a "
            "scheduler"
        )
    check_planner(model.config, options.get("planner"))
    promises_of(model.config).best(options["max_disagreement"])


def _calibrated(model: AdaptiveModel, options: Mapping[str, Any], needed: bool) -> dict[str, Any]:
    """The stored calibration, where one fits; else, where it is ``needed``, a new one."""
    from ada.latency.ready import ready_predictor, stored_predictor

    if options.get("ttft_predictor") is not None:
        return {}
    automatic = not options.get("no_auto_calibrate")
    predictor = ready_predictor(model, automatic) if needed else stored_predictor(model)
    if predictor is None:
        return {}
    # Programs that answer files go by profile and prompt alone, so that chunks and restarts change nothing.
    return {"ttft_predictor": predictor.fixed() if "batch_size" in options else predictor}


def check_planned(model: LlavaModel, options: Mapping[str, Any]) -> None:
    """Raise OptionError for options that only a scheduler can follow, on a model that has none."""
    if getattr(model, "scheduler", None) is not None or options.get("planner") in UNTRAINED:
        return
    budget, by_tokens = budget_of(options), options.get("planner") is None and reads_fewer(options)
    if options.get("planner") is not None or (budget is not None and not by_tokens):
        raise no_scheduler(model)
    if isinstance(budget, TimeBudget):
        raise OptionError(
            f"--latency-budget is {budget}, a time, which image tokens alone cannot keep to: this checkpoint has no "
            f"scheduler. Give a share such as 0.5, or add --planner {'|'.join(UNTRAINED)}"
        )


def generation_options(model: LlavaModel, options: Mapping[str, Any], tokenizer: Any = None) -> dict[str, Any]:
    """Return the keyword arguments of ``generate``; tokenizer: says which tokens end a sentence, where there is one.

    Raises OptionError for a budget, or for image tokens, on a model that was loaded without either.
    """
    if not is_adaptive(model):
        if budget_of(options) is not None:
            raise no_scheduler(model)  # a request's budget, on a model that was loaded without one
        if names_tokens(options):
            raise OptionError("this model was loaded to read all image tokens; give --image-tokens as it is loaded")
        return {}
    budget = budget_of(options)
    by_total = isinstance(budget, TimeBudget) and budget.total_ms is not None and tokenizer is not None
    return {
        **({"sentence_ends": sentence_ends(tokenizer)} if by_total else {}),
        "latency_budget": budget,
        "planner": options.get("planner"),
        "strict_latency_budget": bool(options.get("strict_latency_budget")),
        "ttft_predictor": options.get("ttft_predictor"),
        "reuse": options.get("reuse"),
        "on_plan": options.get("on_plan"),
        "max_disagreement": options.get("max_disagreement"),
        "image_tokens": image_tokens_of(options),
        "token_selector": options.get("token_selector"),
    }


def no_scheduler(model: LlavaModel) -> OptionError:
    """Return the error for a budget on a plain LLaVA; it names the ways on, where its decoder can have budgets."""
    from ada.config import ADAPTIVE

    if model.config.model_type not in ADAPTIVE:
        return OptionError(
            f"a latency budget is not possible with model_type {model.config.model_type!r}; expected one of "
            f"{', '.join(ADAPTIVE)}. Leave --latency-budget out"
        )
    return OptionError(
        f"--latency-budget needs a scheduler, and this checkpoint (model_type {model.config.model_type!r}) has none. "
        "Train one with scripts/v1_5/finetune_ada_heads.sh, or pass --planner "
        f"{'|'.join(UNTRAINED)} for an untrained plan, or --image-tokens auto to leave out image tokens alone"
    )
