"""The demo's comparison tab: one question under two settings, one after the other, so that times are comparable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gradio as gr

from llava.errors import LlavaError
from llava.serve.web.components import (
    PRIVATE,
    Example,
    Page,
    Settings,
    Updates,
    add_examples,
    ask_question,
    question_box,
    sampling_controls,
    shown_error,
    take_values,
)


class Side:
    """One side of the comparison: its controls, its answer and its panels."""

    def __init__(self, page: Page, name: str) -> None:
        self.page = page
        self.settings = Settings(page.parts)
        with gr.Column(min_width=320, elem_id=f"compare-{name}"):
            self.settings.make_controls()
            self.answer_box = gr.Textbox(label="Answer", lines=2, interactive=False)
            self.settings.make_panels()

    @property
    def outputs(self) -> list[Any]:
        """The components that an answer changes."""
        return [self.answer_box, *self.settings.panels]

    def unchanged(self) -> Updates:
        """Return values for ``outputs`` that leave them as they are."""
        return [gr.skip() for _ in self.outputs]

    def answer(
        self,
        asked: Mapping[str, Any],
        model: str | None,
        sampling: Mapping[str, Any],
        fields: Mapping[str, Any],
        memory: dict[int, Any],
    ) -> Iterator[Updates]:
        """Stream the answer under this side's fields: values for ``outputs``. Raises ``LlavaError``."""
        chat = self.page.new_chat(model)
        ask_question(chat, asked)
        _, *panels = self.unchanged()
        for part in self.page.replies(chat, chat.request(sampling, fields)):
            if "finish_reason" in part:
                panels = self.settings.panel_values(part, memory, chat.images)
            yield [chat.turns[-1].answer, *panels]


class CompareTab:
    """The comparison tab: components, made and connected where the tab is made, and its event handler."""

    def __init__(self, page: Page, model: gr.Dropdown, examples: Sequence[Example]) -> None:
        memory = gr.State({})
        box = question_box("One question, asked under both settings…", "compare-question")
        add_examples(examples, box)
        with gr.Row():
            self.sides = [Side(page, name) for name in ("left", "right")]
        self.sampling = sampling_controls()
        controls = [*self.sampling.values()]
        outputs = [memory]
        for side in self.sides:
            controls += side.settings.fields.values()
            outputs += side.outputs
        box.submit(self.ask, [box, model, memory, *controls], outputs, **PRIVATE)

    def ask(
        self, asked: Mapping[str, Any], model: str | None, memory: dict[int, Any], *values: Any
    ) -> Iterator[Updates]:
        """Stream the left answer, then the right one."""
        remaining = iter(values)
        sampling = take_values(self.sampling, remaining)
        fields = [take_values(side.settings.fields, remaining) for side in self.sides]
        shown = [side.unchanged() for side in self.sides]
        try:
            for index, side in enumerate(self.sides):
                for update in side.answer(asked, model, sampling, fields[index], memory):
                    shown[index] = update
                    yield [memory, *_joined(shown)]
        except LlavaError as error:
            yield [memory, *_joined(shown)]
            raise shown_error(error) from error


def _joined(updates: Sequence[Updates]) -> Updates:
    return [value for side in updates for value in side]
