"""The control of a latency budget: a share of the compute, or milliseconds, in the range that the worker's device has."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

import gradio as gr

FIELD = "latency_budget"


def budget_control(side: int) -> gr.HTML:
    """Make the control, whose value is a request's ``latency_budget`` as text; side: 1 for half of the compute."""
    files = resources.files(__package__)
    template, style, code = (
        files.joinpath(f"budget_control.{kind}").read_text("utf-8") for kind in ("html", "css", "js")
    )
    return gr.HTML(
        "0.5" if side else "1",
        html_template=template,
        css_template=style,
        js_on_load=code,
        elem_classes="latency-budget",
        budgets=None,
        fitted=False,
    )


def fitted(state: Mapping[str, Any]) -> gr.HTML:
    """Return the update for a model whose worker says ``state`` at ``/ready``."""
    return gr.HTML(budgets=state.get(FIELD, {}).get("budgets"), fitted=bool(state))
