"""The web demo's budget controls and plan panel: which layers, heads and image tokens ran, operations, milliseconds."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from ada.scheduling.execution_plan import ExecutionPlan
from ada.scheduling.plan_plot import figure
from ada.serve.kept_drawing import drawings

START = "<p>Ask something: what ran for the answer, and what it cost, is shown here.</p>"
NO_BUDGET = "<p>The model of this worker takes no latency budget.</p>"


AMOUNTS = ("auto", "all", "75%", "50%", "25%", "10%")


class BudgetPanel:
    """A ``DemoPart`` for latency budgets. Its memory holds the last TTFT of an answer under budget 1."""

    def controls(self) -> Mapping[str, Any]:
        """Make the budget slider, and the choice of image tokens."""
        slider = gr.Slider(
            0.3,
            1.0,
            1.0,
            step=0.01,
            label="Latency budget",
            info="share of the language model's compute that the answer may cost",
            elem_classes="latency-budget",
        )
        tokens = gr.Dropdown(
            [("as the model was trained", ""), *((amount, amount) for amount in AMOUNTS)],
            value="",
            label="Image tokens",
            info="how many of each image's tokens the model reads; auto: as the budget allows",
            elem_classes="image-tokens",
        )
        return {"latency_budget": slider, "image_tokens": tokens}

    def panel(self) -> Sequence[Any]:
        """Make the panel: one HTML component."""
        return [gr.HTML(START, elem_classes="execution-plan")]

    def show(self, reply: Mapping[str, Any], memory: dict[str, Any], images: Sequence[bytes] = ()) -> Sequence[Any]:
        """Return the panel's HTML for an answer's last chunk: plan, images without what was left out, figures."""
        if not reply:
            return [START]
        report = reply.get("latency_budget")
        if report is None:
            return [NO_BUDGET]
        ttft_ms = reply["time_to_first_token_ms"] - reply["queue_ms"]
        tokens = reply["image_tokens"]
        if report["granted"] >= 1 and tokens["late"] == tokens["all"]:
            memory["full_ttft_ms"] = ttft_ms
        rows = [*_tokens(tokens), *_rows(report, reply, ttft_ms, memory.get("full_ttft_ms"))]
        cells = "".join(f"<tr><th scope='row'>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in rows)
        plot = _plot(ExecutionPlan.from_json(report["plan"]))
        return [f"{plot}{drawings(images, tokens)}<table>{cells}</table>"]


_COUNTS = (("layers", "layers"), ("attention heads", "heads"), ("neuron groups", "neuron_groups"))


def _rows(
    report: Mapping[str, Any], reply: Mapping[str, Any], ttft_ms: float, full_ttft_ms: float | None
) -> list[tuple[str, str]]:
    """Return the table's rows: (label, value)."""
    token_ms = reply["token_ms"]
    full = (
        "not measured yet: ask at budget 1 with all image tokens" if full_ttft_ms is None else f"{full_ttft_ms:.0f} ms"
    )
    return [
        ("budget granted", _granted(report)),
        *((label, f"{report[key][0]} of {report[key][1]}") for label, key in _COUNTS),
        ("prefill", _share(report["prefill_gflops"], report["whole_prefill_gflops"])),
        ("each token", _share(report["decode_gflops_per_token"], report["whole_decode_gflops_per_token"])),
        ("time to first token", f"{ttft_ms:.0f} ms (full model, last run: {full})"),
        ("inter-token latency", f"{sum(token_ms) / len(token_ms):.1f} ms" if token_ms else "none: one token"),
    ]


def _tokens(counts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the table's row about image tokens; none for a question without an image."""
    if not counts["all"]:
        return []
    later = "" if counts["late"] == counts["kept"] else f", {counts['late']} in later layers"
    return [("image tokens", f"{counts['kept']} of {counts['all']}{later}")]


def _granted(report: Mapping[str, Any]) -> str:
    text = f"{report['granted']:.3g}" + ("" if report["met"] else ", this model's minimum")
    if report["load_multiplier"] < 1:
        text += f", lowered to {report['allowed']:.3g} while requests wait"
    if report.get("ttft_p95_ms") is not None:
        text += f", predicted {report['ttft_p95_ms']:.0f} ms"
    return text


def _share(gflops: float, full_gflops: float) -> str:
    return f"{gflops:.3g} of {full_gflops:.3g} GFLOPs ({100 * gflops / full_gflops:.0f} %)"


def _plot(plan: ExecutionPlan) -> str:
    buffer = io.BytesIO()
    figure(plan).savefig(buffer, format="png", dpi=110)
    alt = f"Execution plan: {plan.layers_run} of {len(plan.layers)} layers run, {plan.heads_run} heads in all"
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{alt}" style="width: 100%; height: auto">'
