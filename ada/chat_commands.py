"""Answers the CLI's chat commands ``/budget``, ``/image-tokens`` and ``/plan``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ada.budget import read_budget
from ada.image_token_options import image_tokens_of
from ada.image_tokens.amount import ImageTokens
from ada.options import prepare_model
from ada.scheduling.execution_plan import ExecutionPlan
from ada.scheduling.plan_plot import blocks
from llava.serve.chat_session import ChatSession

HELP = {
    "/budget VALUE": "answer from now on under this budget; alone: show it",
    "/image-tokens VALUE": "read so many tokens of each image from now on; alone: show it",
    "/plan": "draw the last plan, and say how many image tokens it read",
}


def answer_command(command: str, argument: str, session: ChatSession) -> str | None:
    """Answer ``/command argument``; None where the command is another's. Raises OptionError for a bad budget."""
    if command == "budget":
        if argument:
            _change(session, "latency_budget", read_budget(argument))
        return f"budget: {session.options.get('latency_budget') or 'none'}"
    if command == "image-tokens":
        if argument:
            _change(session, "image_tokens", ImageTokens.parse(argument))
        return f"image tokens: {image_tokens_of(session.options) or 'as the model was trained'}"
    return _show_plan(session) if command == "plan" else None


def _change(session: ChatSession, name: str, value: object) -> None:
    """Set an option for the answers to come. Raises OptionError, and changes nothing, where it cannot be followed."""
    changed: dict[str, Any] = {name: value}
    changed |= prepare_model(session.model, {**session.options, **changed, "image_file": session.images})
    session.options.update(changed)


def _show_plan(session: ChatSession) -> str:
    metadata = session.last_metadata or {}
    if "plan" not in metadata:
        return "no plan yet: ask something first"
    drawn, counts = blocks(ExecutionPlan.from_json(metadata["plan"])), metadata.get("image_tokens") or {}
    return f"{drawn}\n{read_of(counts)}" if counts.get("all") else drawn


def read_of(counts: Mapping[str, Any]) -> str:
    """Say how many image tokens an answer has read. counts: ``image_tokens`` of its report."""
    later = "" if counts["late"] == counts["kept"] else f", {counts['late']} by later layers"
    return f"image tokens: {counts['kept']} of {counts['all']}{later}"
