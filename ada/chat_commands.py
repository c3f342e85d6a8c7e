"""Answers the CLI's chat commands ``/budget`` and ``/plan``."""

from __future__ import annotations

from typing import Any

from ada.budget import read_budget
from ada.options import prepare_model
from ada.scheduling.execution_plan import ExecutionPlan
from ada.scheduling.plan_plot import blocks
from llava.serve.chat_session import ChatSession

HELP = {"/budget VALUE": "answer from now on under this budget; alone: show it", "/plan": "draw the last plan"}


def answer_command(command: str, argument: str, session: ChatSession) -> str | None:
    """Answer ``/command argument``; None where the command is another's. Raises OptionError for a bad budget."""
    if command == "budget":
        return _set_budget(argument, session) if argument else f"budget: {_shown(session.options)}"
    return _show_plan(session) if command == "plan" else None


def _shown(options: dict[str, Any]) -> str:
    return str(options.get("latency_budget") or "none")


def _set_budget(argument: str, session: ChatSession) -> str:
    options = {**session.options, "latency_budget": read_budget(argument)}
    options.update(prepare_model(session.model, options))
    session.options.update(options)
    return f"budget: {_shown(options)}"


def _show_plan(session: ChatSession) -> str:
    plan = (session.last_metadata or {}).get("plan")
    return "no plan yet: ask something first" if plan is None else blocks(ExecutionPlan.from_json(plan))
