"""The web demo's budget slider, and what became of the budget: the plan as a picture, operations, milliseconds."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from ada.scheduling.execution_plan import ExecutionPlan
from ada.scheduling.plan_plot import figure

START = "<p>Ask something: what ran for the answer, and what it cost, is shown here.</p>"
NO_BUDGET = "<p>The model of this worker takes no latency budget.</p>"


class BudgetPanel:
    """A ``DemoPart``. Its memory keeps the last time to the first token that all of a model took."""

    def controls(self) -> Mapping[str, Any]:
        """The slider."""
        slider = gr.Slider(
            0.3,
            1.0,
            1.0,
            step=0.01,
            label="Latency budget",
            info="share of the language model's compute that the answer may cost",
            elem_classes="latency-budget",
        )
        return {"latency_budget": slider}

    def panel(self) -> Sequence[Any]:
        """One piece of HTML."""
        return [gr.HTML(START, elem_classes="execution-plan")]

    def show(self, reply: Mapping[str, Any], memory: dict[str, Any]) -> Sequence[Any]:
        """The picture and the figures."""
        if not reply:
            return [START]
        facts = reply.get("latency_budget")
        if facts is None:
            return [NO_BUDGET]
        first_ms = reply["time_to_first_token_ms"] - reply["queue_ms"]
        if facts["granted"] >= 1:
            memory["whole_first_ms"] = first_ms
        rows = _rows(facts, reply, first_ms, memory.get("whole_first_ms"))
        cells = "".join(f"<tr><th scope='row'>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in rows)
        return [f"{_picture(ExecutionPlan.from_json(facts['plan']))}<table>{cells}</table>"]


def _rows(
    facts: Mapping[str, Any], reply: Mapping[str, Any], first_ms: float, whole_ms: float | None
) -> list[tuple[str, str]]:
    token_ms = reply["token_ms"]
    granted = f"{facts['granted']:.3g}" + ("" if facts["met"] else ": the least this model can do")
    if facts["load_multiplier"] < 1:
        granted += f", lowered to {facts['allowed']:.3g} while requests wait"
    if facts.get("predicted_ms") is not None:
        granted += f", predicted {facts['predicted_ms']:.0f} ms"
    compared = "not measured yet: ask with the slider at 1" if whole_ms is None else f"{whole_ms:.0f} ms"
    return [
        ("budget granted", granted),
        *((what, f"{facts[key][0]} of {facts[key][1]}") for what, key in _COUNTS),
        ("prefill", _of(facts["prefill_gflops"], facts["whole_prefill_gflops"])),
        ("each token", _of(facts["decode_gflops_per_token"], facts["whole_decode_gflops_per_token"])),
        ("first token after", f"{first_ms:.0f} ms (whole model, last time: {compared})"),
        ("further tokens", f"{sum(token_ms) / len(token_ms):.1f} ms each" if token_ms else "none"),
    ]


_COUNTS = (("layers", "layers"), ("attention heads", "heads"), ("neuron groups", "neuron_groups"))


def _of(gflops: float, whole: float) -> str:
    return f"{gflops:.3g} of {whole:.3g} GFLOPs ({100 * gflops / whole:.0f} %)"


def _picture(plan: ExecutionPlan) -> str:
    buffer = io.BytesIO()
    figure(plan).savefig(buffer, format="png", dpi=110)
    said = f"Execution plan: {plan.layers_run} of {len(plan.layers)} layers run, {plan.heads_run} heads in all"
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{said}" style="width: 100%; height: auto">'
