"""The demo's comparison tab: one question under two settings, one after the other, so that times are comparable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from llava.errors import LlavaError
from llava.serve.web.chat_view import messages, status
from llava.serve.web.components import (
    PRIVATE,
    STREAMED,
    Example,
    Page,
    Settings,
    Updates,
    add_examples,
    answer_number,
    ask_question,
    changes,
    question_box,
    sampling_controls,
    status_line,
    take_values,
    unchanged,
)
from llava.serve.web.conversation_state import WebChat
from llava.serve.web.demo_part import SIDES
from llava.serve.web.differences import differences

START = "<p>Ask one question: it is answered under budget A, then under budget B.</p>"


@dataclass
class Comparison:
    """One question to both sides. running: what is being answered, whose answer does not always count.

    hint: why nothing could be asked. number: counts a page's comparisons, from 1.
    """

    chats: list[WebChat] = field(default_factory=list)
    running: WebChat | None = None
    hint: str = ""
    is_stopped: bool = False
    number: int = 0

    def stop(self) -> None:
        """Let no more answers come."""
        self.is_stopped = True
        for chat in (self.running, *self.chats):
            if chat is not None:
                chat.stop()

    @property
    def is_pending(self) -> bool:
        """Whether some side is still to be answered."""
        return any(chat.is_pending or chat.live is not None for chat in self.chats)

    @property
    def is_complete(self) -> bool:
        """Whether both sides have answered."""
        return bool(self.chats) and all(chat.answered for chat in self.chats)


class Side:
    """One side of the comparison: its controls, its answer and its panels."""

    def __init__(self, page: Page, name: str) -> None:
        self.settings, self.name = Settings(page.parts, name), name
        with gr.Column(min_width=280, elem_id=f"compare-{name}-budget"):
            self.settings.make_controls()

    def make_answer(self) -> None:
        """Add the answer and the panels at this position of the page."""
        with gr.Column(min_width=280, elem_id=f"compare-{self.name}"):
            self.answer = gr.Chatbot(
                height=220,
                autoscroll=False,
                label=f"Answer {self.name}",
                buttons=[],
                latex_delimiters=[],
                feedback_options=None,
                elem_classes="compared",
                elem_id=f"compare-{self.name}-answer",
                placeholder="No question yet.",
            )
            self.settings.make_panels()

    def view(self, chat: WebChat) -> Updates:
        """Return values for the answer and the panels."""
        said = [{**message, "options": None} for message in messages(chat) if message["role"] == "assistant"]
        return [said, *self.settings.show_chat(chat)]


class CompareTab:
    """The comparison tab: components, made and connected where the tab is made, and its event handlers."""

    def __init__(self, page: Page, model: gr.Dropdown, examples: Sequence[Example]) -> None:
        self.page = page
        self.comparison, self.number = gr.State(None), answer_number()
        with gr.Row():
            self.sides = [Side(page, name) for name in SIDES]
        self.box = question_box("One question for both", "One question, asked under both budgets…", "compare-question")
        with gr.Row(elem_classes="buttons"):
            self.stop = gr.Button("Stop", size="sm", min_width=90, interactive=False, elem_id="compare-stop")
            self.again = gr.Button(
                "Ask both again", size="sm", min_width=90, interactive=False, elem_id="compare-again"
            )
        self.status = status_line("compare-status")
        self.differences = gr.HTML(START, elem_id="differences")
        with gr.Row():
            for side in self.sides:
                side.make_answer()
        self.folds = add_examples(examples, self.box)
        with gr.Accordion("Settings", open=False):
            with gr.Row():
                for side in self.sides:
                    with gr.Column(min_width=280):
                        side.settings.make_settings()
            self.sampling = sampling_controls()
        self.wire(model)

    @property
    def outputs(self) -> list[Any]:
        """The components that a comparison changes."""
        sides = [component for side in self.sides for component in (side.answer, *side.settings.panels)]
        return [self.stop, self.again, self.status, self.differences, *sides]

    def wire(self, model: gr.Dropdown) -> None:
        """Connect the components with the event handlers."""
        inputs = [self.comparison, self.number, *self.sampling.values()]
        for side in self.sides:
            inputs += side.settings.inputs
        for asking in (self.box.submit, self.again.click):
            inputs_of_question = [self.box, model, self.comparison]
            shown = [self.comparison, *self.outputs, self.number]
            asked = asking(self.ask, inputs_of_question, shown, **PRIVATE)
            asked.then(self.answer, inputs, self.outputs, **STREAMED)
        self.stop.click(self.stop_answers, [self.comparison], self.outputs, **PRIVATE)

    def view(self, comparison: Comparison | None) -> Updates:
        """Return what is shown of a comparison."""
        comparison = comparison or Comparison()
        chats = comparison.chats or [WebChat(), WebChat()]
        busy = comparison.is_pending
        shown = START
        if comparison.is_complete:
            shown = differences(self.page.parts, *(chat.answered[-1] for chat in chats))
        elif comparison.chats:
            shown = ""
        sides = [value for side, chat in zip(self.sides, chats, strict=True) for value in side.view(chat)]
        can_ask = bool(comparison.chats) and not busy
        return [gr.update(interactive=busy), gr.update(interactive=can_ask), self._status(comparison), shown, *sides]

    def _status(self, comparison: Comparison) -> str:
        if comparison.hint:
            return status(WebChat(hint=comparison.hint))
        for name, chat in zip(SIDES, comparison.chats, strict=False):
            if chat.live is not None:
                return f"<span>{name}</span>{status(chat)}"
            if chat.is_pending:
                return f"<span>{name}</span><p>Asked once without being timed, so that both are warm</p>"
        return ""

    def ask(self, asked: Mapping[str, Any], model: str | None, before: Comparison | None) -> tuple[Any, ...]:
        """Put the question to both sides, to be answered instead of the one before.

        The last value is the comparison's number, which ``answer`` takes.
        """
        comparison = Comparison(number=1)
        if before is not None:
            before.stop()
            comparison.number = before.number + 1
        try:
            self.page.check(asked)
            chats = [self.page.new_chat(model) for _ in self.sides]
            for chat in chats:
                ask_question(chat, asked)
            comparison.chats = chats
        except LlavaError as error:
            comparison.hint = str(error)
        return comparison, *self.view(comparison), comparison.number

    def answer(self, comparison: Comparison | None, number: int | None, *values: Any) -> Iterator[Updates]:
        """Stream answer A, then answer B; nothing where ``number`` is of an earlier comparison."""
        yield from changes(self._answer(comparison or Comparison(), number, iter(values)))

    def _answer(self, comparison: Comparison, number: int | None, values: Iterator[Any]) -> Iterator[Updates]:
        if number != comparison.number:
            yield unchanged(self.outputs)
            return
        sampling = take_values(self.sampling, values)
        fields = [side.settings.fields(values) for side in self.sides]
        for chat, own in zip(comparison.chats, fields, strict=False):
            compared = {name: value for part in self.page.parts for name, value in part.compared.items()}
            for _ in self._replies(comparison, chat, chat.request(sampling, {**own, **compared})):
                yield self.view(comparison)
        yield unchanged(self.outputs) if comparison.is_stopped else self.view(comparison)

    def _replies(self, comparison: Comparison, chat: WebChat, body: Mapping[str, Any]) -> Iterator[Any]:
        """Yield as an answer goes on, after one token that is not timed: what is made once is then in memory."""
        if comparison.is_stopped:
            return
        comparison.running = first = WebChat(chat.model, chat.mode, [chat.turns[-1].again()])
        for _ in self.page.replies(first, {**body, "max_new_tokens": 1}):
            yield None
        if (why := first.turns[-1].failure) is not None:
            chat.turns[-1].failure = why
        elif not comparison.is_stopped:
            yield from self.page.replies(chat, body)

    def stop_answers(self, comparison: Comparison | None) -> Updates:
        """Let no more of the answers come; what has come stays."""
        if comparison is not None:
            comparison.stop()
        return self.view(comparison)
