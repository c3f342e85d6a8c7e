"""The control of a latency budget: a share of the compute, or milliseconds on the worker's device."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from string import Template
from typing import Any

import gradio as gr

FIELD = "latency_budget"


def budget_control(title: str, share: float) -> gr.HTML:
    """Make the control, whose value is a request's ``latency_budget`` as text; at first ``share``, in (0, 1]."""
    files = resources.files(__package__)
    template, style, code = (
        files.joinpath(f"budget_control.{kind}").read_text("utf-8") for kind in ("html", "css", "js")
    )
    return gr.HTML(
        f"{share:g}",
        html_template=Template(template).substitute(title=title),
        css_template=style,
        js_on_load=code,
        elem_classes="latency-budget",
        budgets=None,
        fitted=False,
    )


def fitted(state: Mapping[str, Any]) -> gr.HTML:
    """Return the update for a model whose worker says ``state`` at ``/ready``."""
    return gr.HTML(budgets=state.get(FIELD, {}).get("budgets"), fitted=bool(state))
