"""The demo's chat tab: ask, stop, ask again, clear, vote, share, download."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import gradio as gr

from llava.errors import LlavaError
from llava.serve.web import browser_code
from llava.serve.web.chat_view import CHANGE, can, messages, status
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
    question_again,
    question_box,
    sampling_controls,
    status_line,
    take_values,
    unchanged,
)
from llava.serve.web.conversation_state import WebChat
from llava.serve.web.transcript import transcript
from llava.serve.web.vote_log import VOTES

log = logging.getLogger(__name__)

BUTTONS = {"upvote": "Good answer", "downvote": "Bad answer", "flag": "Flag it"}
THANKS = "Thank you for your vote."
PLACEHOLDER = "Add an image to the field below, and ask about it. Or choose an example."


class ChatTab:
    """The chat tab. ``layout`` makes its components, ``wire`` connects them with its methods, the event handlers.

    Every handler changes the chat, and returns what then is shown of it: ``view``.
    """

    def __init__(self, page: Page, model: gr.Dropdown, examples: Sequence[Example]) -> None:
        self.page = page
        self.model = model
        self.settings = Settings(page.parts)
        self.layout(examples)
        self.wire()

    def layout(self, examples: Sequence[Example]) -> None:
        """Make the components: the conversation on the left, panels and settings on the right."""
        self.chat = gr.State(None)  # a WebChat, once the page was opened
        self.number = answer_number()
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                self.shown = gr.Chatbot(
                    height="var(--conversation-height, 420px)",
                    label="Conversation",
                    buttons=[],
                    latex_delimiters=[],
                    feedback_options=None,
                    elem_id="conversation",
                    placeholder=PLACEHOLDER,
                )
                self.status = status_line("status")
                self.settings.make_controls()
                self.box = question_box("Your question", "Ask about an image…", "question", autofocus=True)
                self._buttons()
                self.folds = add_examples(examples, self.box)
            with gr.Column(scale=2, min_width=320):
                self.settings.make_panels()
                with gr.Accordion("Settings", open=False):
                    self.settings.make_settings()
                    self.sampling = sampling_controls()

    def _buttons(self) -> None:
        """Make the buttons, none of which can be clicked before anything was asked."""

        def button(text: str, elem_id: str) -> gr.Button:
            return gr.Button(text, size="sm", min_width=90, interactive=False, elem_id=elem_id)

        with gr.Row(elem_classes="buttons"):
            self.stop, self.retry = button("Stop", "stop"), button("Regenerate", "regenerate")
            self.clear = button("Clear", "clear")
        with gr.Row(elem_classes="buttons"):
            self.votes = {vote: button(BUTTONS[vote], vote) for vote in VOTES}
            self.share, self.download = button("Share by link", "share"), button("Download", "download")
        self.link = gr.Textbox(
            label="Link to this conversation as it is now",
            buttons=["copy"],
            interactive=False,
            visible=False,
            elem_id="link",
        )
        self.link_id, self.file = gr.Textbox(visible="hidden"), gr.Textbox(visible="hidden")

    @property
    def view_outputs(self) -> list[Any]:
        """The components that ``view`` has values for."""
        buttons = [self.stop, self.retry, self.clear, *self.votes.values(), self.share, self.download]
        return [self.shown, self.status, *buttons]

    @property
    def outputs(self) -> list[Any]:
        """All components that a handler may change, but for chat and field."""
        return [*self.view_outputs, self.link, *self.settings.panels]

    def view(self, chat: WebChat | None) -> Updates:
        """Return what is shown of a conversation, panels aside."""
        chat = chat or WebChat()
        allowed = can(chat)
        votes = [allowed["vote"]] * len(self.votes)
        shares = [allowed["share"]] * 2
        shown = [messages(chat), status(chat), allowed["stop"], allowed["retry"], allowed["clear"], *votes, *shares]
        return shown

    def everything(self, chat: WebChat | None) -> Updates:
        """Return what is shown of a conversation, panels included; a link to what it was before is not."""
        return [*self.view(chat), gr.update(visible=False), *self.settings.show_chat(chat or WebChat())]

    def wire(self) -> None:
        """Connect the components with the event handlers."""
        # Without the chat, which is changed in place: no late piece of an answer brings a cleared one back.
        inputs = [self.chat, self.number, *self.sampling.values(), *self.settings.inputs]
        due = [*self.view_outputs, self.number]
        asked = self.box.submit(self.ask, [self.box, self.chat, self.model], [self.chat, self.box, *due], **PRIVATE)
        again = self.retry.click(self.ask_again, [self.chat], due, **PRIVATE)
        option = self.shown.option_select(self.choose, [self.chat], [self.box, *due], **PRIVATE)
        self.answers = [event.then(self.answer, inputs, self.outputs, **STREAMED) for event in (asked, again, option)]
        self.stop.click(self.stop_answer, [self.chat], self.outputs, **PRIVATE)
        forgotten = self.clear.click(self.forget, [self.chat], self.outputs, **PRIVATE)
        # Gradio shows an answer's last piece again as it ends, also where the chat was cleared just before.
        forgotten.then(self.everything, [self.chat], self.outputs, **PRIVATE)
        for kind, button in self.votes.items():
            button.click(partial(self.vote, kind), [self.chat], self.view_outputs, **PRIVATE)
        shared = self.share.click(self.share_chat, [self.chat], [self.link_id, self.link, self.status], **PRIVATE)
        shared.then(None, [self.link_id], [self.link], js=browser_code.LINK, **PRIVATE)
        written = self.download.click(self.write, [self.chat], [self.file], **PRIVATE)
        written.then(None, [self.file], None, js=browser_code.DOWNLOAD, **PRIVATE)

    def ask(self, asked: Mapping[str, Any], chat: WebChat | None, model: str | None) -> tuple[Any, ...]:
        """Append the question to the conversation; the question field is emptied where that succeeds.

        The last value is the number that ``answer`` takes, None where nothing is to be answered.
        """
        box: Any = gr.skip()
        number: int | None = None
        chat = chat or WebChat()
        try:
            self.page.check(asked)
            if model == chat.model and chat.turns:
                ask_question(chat, asked)
            else:
                new = self.page.new_chat(model)
                ask_question(new, asked)
                chat.become(new)
            chat.hint, box, number = "", gr.MultimodalTextbox(value=None), chat.answers
        except LlavaError as error:
            chat.hint = str(error)
        self.page.kept.keep(chat)
        return chat, box, *self.view(chat), number

    def answer(self, chat: WebChat | None, number: int | None, *values: Any) -> Iterator[Updates]:
        """Stream the answer of a question that waits for it.

        number: the chat's ``answers`` as that was asked; where these have changed since, another event shows what there
        is, and answers what was asked then.
        """
        yield from changes(self._answer(chat, number, iter(values)))

    def _answer(self, chat: WebChat | None, number: int | None, values: Iterator[Any]) -> Iterator[Updates]:
        if chat is None or number != chat.answers or not chat.is_pending:
            yield unchanged(self.outputs)
            return
        sampling, fields = take_values(self.sampling, values), self.settings.fields(values)
        answering, notes, panels = chat.answers + 1, None, self.settings.show_chat(chat)
        for _ in self.page.replies(chat, chat.request(sampling, fields)):
            if chat.live is not None and chat.live.notes != notes:
                notes, panels = chat.live.notes, self.settings.show_chat(chat)
            yield [*self.view(chat), gr.update(visible=False), *panels]
        self.page.kept.keep(chat)
        if chat.answers == answering:
            yield self.everything(chat)
        else:  # it was stopped, cleared or asked again, which has shown what there is
            yield unchanged(self.outputs)

    def ask_again(self, chat: WebChat | None) -> Updates:
        """Remove the last answer, so that it can be given again; the last value is the number that ``answer`` takes."""
        if chat is None:
            return [*self.view(chat), None]
        chat.ask_again()
        chat.hint = ""
        return [*self.view(chat), chat.answers]

    def choose(self, chat: WebChat | None, chosen: gr.SelectData) -> Updates:
        """Try a question again that got no answer, or take it back to its field, to be changed."""
        if chat is None or not chat.turns:
            return [gr.skip(), *self.view(chat), None]
        if chosen.value == CHANGE:
            return [question_again(chat.take_back()), *self.view(chat), None]
        return [gr.skip(), *self.ask_again(chat)]

    def stop_answer(self, chat: WebChat | None) -> Updates:
        """Let no more of the answer come; what has come stays."""
        if chat is not None:
            chat.stop()
        return self.everything(chat)

    def forget(self, chat: WebChat | None) -> Updates:
        """Begin a new conversation, with the panels as they were at the start."""
        if chat is not None:
            chat.clear()
            self.page.kept.keep(chat)
        return self.everything(chat)

    def vote(self, kind: str, chat: WebChat | None) -> Updates:
        """Log a vote on the last answer."""
        if chat is not None and chat.turns and chat.turns[-1].answer:
            chat.hint = THANKS
            try:
                if self.page.log.add(kind, chat):
                    chat.turns[-1].vote = kind
                else:
                    chat.hint = "the log of today is full; the vote was not kept"
            except OSError as error:
                log.error("a vote was not kept: %s", error)
                chat.hint = "the vote could not be kept; please write to those who run this page"
        return self.view(chat)

    def share_chat(self, chat: WebChat | None) -> Updates:
        """Store the conversation; return its link's id, for the browser to make a link of."""
        if chat is None or not any(turn.answer for turn in chat.turns):
            return [gr.skip()] * 3
        try:
            chat_id = self.page.shared.add(chat)
        except OSError as error:
            log.error("a conversation was not shared: %s", error)
            chat.hint = "the conversation could not be stored; please write to those who run this page"
            return ["", gr.update(visible=False), status(chat)]
        return [chat_id, gr.update(visible=True), gr.skip()]

    def write(self, chat: WebChat | None) -> str:
        """Return the conversation as a page, for the browser to store."""
        return transcript(chat or WebChat())
