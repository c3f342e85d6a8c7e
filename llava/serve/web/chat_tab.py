"""The demo's chat tab: ask, stop, ask again, clear, vote."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
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
    messages,
    question_again,
    question_box,
    sampling_controls,
    shown_error,
    take_values,
)
from llava.serve.web.conversation_state import WebChat
from llava.serve.web.vote_log import VOTES

log = logging.getLogger(__name__)

BUTTONS = {"upvote": "Good answer", "downvote": "Bad answer", "flag": "Flag it"}
ERROR_S = 10.0  # how long a hint is shown


class ChatTab:
    """The chat tab. ``layout`` makes its components, ``wire`` connects them with its methods, the event handlers."""

    def __init__(self, page: Page, model: gr.Dropdown, examples: Sequence[Example]) -> None:
        self.page = page
        self.model = model
        self.settings = Settings(page.parts)
        self.layout(examples)
        self.wire()

    def layout(self, examples: Sequence[Example]) -> None:
        """Make the components: the conversation on the left, controls and panels on the right."""
        self.chat, self.memory = gr.State(None), gr.State({})  # the chat: a WebChat, once something was asked
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                self.shown = gr.Chatbot(
                    height=480,
                    label="Conversation",
                    buttons=[],
                    latex_delimiters=[],
                    feedback_options=None,
                    elem_id="conversation",
                    placeholder="Drop or paste an image into the field below, and ask about it.",
                )
                self.box = question_box("Ask about an image…", "question", autofocus=True)
                with gr.Row():
                    self.votes = {vote: gr.Button(BUTTONS[vote], size="sm", min_width=70) for vote in VOTES}
                with gr.Row():
                    self.stop = gr.Button("Stop", size="sm", min_width=80, elem_id="stop")
                    self.retry = gr.Button("Regenerate", size="sm", min_width=80, elem_id="regenerate")
                    self.clear = gr.Button("Clear", size="sm", min_width=80, elem_id="clear")
                add_examples(examples, self.box)
            with gr.Column(scale=2, min_width=320):
                self.settings.make_controls()
                self.settings.make_panels()
                self.sampling = sampling_controls()

    def wire(self) -> None:
        """Connect the components with the event handlers."""
        controls = [*self.sampling.values(), *self.settings.fields.values()]
        inputs = [self.chat, self.memory, *controls]
        # Without chat and memory, which are changed in place: no late piece of an answer brings a cleared chat back.
        outputs = [self.shown, self.box, *self.settings.panels]
        asked = self.box.submit(
            self.ask, [self.box, self.chat, self.model], [self.chat, self.shown, self.box], **PRIVATE
        )
        again = self.retry.click(self.ask_again, [self.chat], [self.chat, self.shown], **PRIVATE)
        for event in (asked, again):
            event.success(self.answer, inputs, outputs, **PRIVATE)
        self.stop.click(self.stop_answer, [self.chat], None, **PRIVATE)
        cleared = [self.chat, self.shown, *self.settings.panels]
        for forgetting in (self.clear.click, self.shown.clear):  # the chat has such a button, too
            forgotten = forgetting(self.forget, [self.chat], cleared, **PRIVATE)
            # Gradio shows an answer's last piece again as it ends, also where the chat was cleared just before.
            forgotten.then(self.shown_chat, [self.chat], [self.shown], **PRIVATE)
        for kind, button in self.votes.items():
            button.click(partial(self.vote, kind), [self.chat], None, **PRIVATE)

    def ask(self, asked: Mapping[str, Any], chat: WebChat | None, model: str | None) -> tuple[Any, ...]:
        """Append the question to the conversation; the question field is emptied where that succeeds."""
        try:
            if chat is None or model != chat.model:
                chat = self.page.new_chat(model)
            ask_question(chat, asked)
        except LlavaError as error:
            raise shown_error(error) from error
        return chat, messages(chat), gr.MultimodalTextbox(value=None)

    def answer(self, chat: WebChat | None, memory: dict[int, Any], *values: Any) -> Iterator[Updates]:
        """Stream the last question's answer. A question that gets none goes back to its field, to be changed."""
        if chat is None or not chat.turns:
            raise shown_error("there is no question yet", ERROR_S)
        remaining = iter(values)
        sampling, fields = take_values(self.sampling, remaining), take_values(self.settings.fields, remaining)
        panels: Updates = [gr.skip() for _ in self.settings.panels]
        try:
            for part in self.page.replies(chat, chat.request(sampling, fields)):
                if "finish_reason" in part:
                    panels = self.settings.panel_values(part, memory, chat.images)
                yield [messages(chat), gr.skip(), *panels]
            if not chat.turns:  # cleared meanwhile; Gradio shows the last piece of this event again as it ends
                yield [[], gr.skip(), *self.settings.panel_values({}, {})]
        except LlavaError as error:
            box = gr.skip() if chat.turns[-1].answer else question_again(chat.take_back())
            yield [messages(chat), box, *panels]
            raise shown_error(error) from error

    def shown_chat(self, chat: WebChat | None) -> list[dict[str, Any]]:
        """Return what the conversation shows; nothing once it was cleared."""
        return [] if chat is None else messages(chat)

    def ask_again(self, chat: WebChat | None) -> Updates:
        """Remove the last answer, so that it can be given again."""
        if chat is None:
            return [None, []]
        chat.ask_again()
        return [chat, messages(chat)]

    def stop_answer(self, chat: WebChat | None) -> None:
        """Let no more of the answer come; what has come stays."""
        if chat is not None:
            chat.answers += 1

    def forget(self, chat: WebChat | None) -> Updates:
        """Begin a new conversation, with the panels as they were at the start."""
        if chat is not None:
            self.stop_answer(chat)
            chat.turns.clear()
        return [None, [], *self.settings.panel_values({}, {})]

    def vote(self, kind: str, chat: WebChat | None) -> None:
        """Log a vote on the last answer."""
        if chat is None or not chat.turns or chat.turns[-1].answer is None:
            raise shown_error("there is no answer to vote on yet", ERROR_S)
        try:
            kept = self.page.log.add(kind, chat)
        except OSError as error:
            log.error("a vote was not kept: %s", error)
            raise shown_error("the vote could not be kept; please write to those who run this page", ERROR_S) from error
        if not kept:
            raise shown_error("the log of today is full; the vote was not kept", ERROR_S)
        gr.Info("Thank you.")
