"""The web demo's part for latency budgets: the budget's control, what ran for an answer, the answers so far."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from ada.scheduling.execution_plan import ExecutionPlan
from ada.serve.demo import figures, history_chart, kept_drawing, plan_drawing
from ada.serve.demo.budget_control import FIELD, budget_control, fitted
from llava.serve.web.conversation_state import Answered
from llava.serve.web.demo_part import SIDES, Difference

TITLE = "<h2>What ran</h2>"
START = f"{TITLE}<p>Ask something, and see here which layers, heads and neurons answered, and what that cost.</p>"
NO_BUDGET = f"{TITLE}<p>The model of this worker takes no latency budget: all of it ran.</p>"
AMOUNTS = ("auto", "all", "75%", "50%", "25%", "10%")
STYLE = (
    """
--plan-on: #2b5fb3;
.dark & { --plan-on: #7ea6ec; }
table { width: 100%; font-size: 0.85em; border-collapse: collapse; margin: 8px 0; }
:is(table, tr, th, td) { border: none !important; text-align: left; vertical-align: top; font-weight: normal; }
:is(th, td) { padding: 3px 6px; border-bottom: 1px solid var(--border-color-primary) !important; }
th { color: var(--body-text-color-subdued); }
h2 { font-size: 1.1em; margin: 0 0 6px; }
"""
    + plan_drawing.STYLE
    + kept_drawing.STYLE
    + history_chart.STYLE
)


class BudgetPart:
    """A ``DemoPart`` for latency budgets."""

    compared: Mapping[str, Any] = {"reuse": False}

    def controls(self, side: str = "") -> Sequence[Any]:
        """Make the budget's control: at first all of the compute, and half of it for a comparison's second side."""
        return [budget_control(f"Latency budget {side}".strip(), 0.5 if side == SIDES[1] else 1)]

    def settings(self) -> Sequence[Any]:
        """Make the choice of image tokens."""
        tokens = gr.Dropdown(
            [("as the model was trained", ""), *((amount, amount) for amount in AMOUNTS)],
            value="",
            label="Image tokens",
            info="how many of each image's tokens the model reads; auto: as the budget allows",
            elem_classes="image-tokens",
        )
        return [tokens]

    def fields(self, values: Sequence[Any]) -> Mapping[str, Any]:
        """Return the request's budget and image tokens, where they say anything."""
        named = zip((FIELD, "image_tokens"), values, strict=True)
        return {name: value for name, value in named if value}

    def fit(self, state: Mapping[str, Any]) -> Sequence[Any]:
        """Return the budget's range on the worker's device."""
        return [fitted(state), gr.skip()]

    def panels(self) -> Sequence[Any]:
        """Make the panels: what ran, and the answers so far."""
        panel = gr.HTML(START, css_template=STYLE, elem_classes="execution-plan")
        return [panel, gr.HTML("", css_template=STYLE, elem_classes="answers-so-far")]

    def show(self, answers: Sequence[Answered], images: Sequence[bytes], state: Mapping[str, Any]) -> Sequence[Any]:
        """Return the panels after the last answer: plan, images without what was left out, figures; the chart."""
        if not answers:
            return [START, ""]
        last = answers[-1]
        if not last.reply.get(FIELD):
            return [NO_BUDGET, history_chart.history_chart(answers)]
        plan = ExecutionPlan.from_json(last.reply[FIELD]["plan"])
        drawings = kept_drawing.drawings(images, last.reply["image_tokens"])
        shown = f"{TITLE}{plan_drawing.plan_drawing(plan)}{drawings}{_table(figures.rows(last, answers))}"
        return [shown, history_chart.history_chart(answers)]

    def show_live(
        self, notes: Mapping[str, Any], answers: Sequence[Answered], state: Mapping[str, Any]
    ) -> Sequence[Any]:
        """Return the panels while an answer is given: what is decided of its plan so far."""
        history, said, plan = history_chart.history_chart(answers), state.get(FIELD), notes.get(FIELD, {}).get("plan")
        if plan is not None:
            return [f"{TITLE}{plan_drawing.plan_drawing(ExecutionPlan.from_json(plan))}", history]
        return [START if said is None else f"{TITLE}{plan_drawing.undecided_drawing(said)}", history]

    def differences(self, left: Answered, right: Answered) -> Sequence[Difference]:
        """Return what two answers asked for, and what ran."""
        return figures.differences(left, right)


def _table(rows: Sequence[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><th scope='row'>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in rows)
    return f"<table class='figures'>{cells}</table>"
