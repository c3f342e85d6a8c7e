"""The web demo's page: a chat with one model, and one question under two settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from llava.errors import LlavaError
from llava.serve.web import browser_code
from llava.serve.web.chat_tab import ChatTab
from llava.serve.web.compare_tab import CompareTab
from llava.serve.web.components import PRIVATE, RELOAD, Example, Page, Settings, Updates
from llava.serve.web.conversation_state import WebChat
from llava.serve.web.uploads import KEPT_S, LOOK_S

TITLE = "LLaVA"
CSS = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
SHARED = "This conversation was shared with you. What you ask from here on is yours alone."


class DemoPage:
    """The page: the choice of a model, the tabs, and what happens as it is opened."""

    def __init__(self, page: Page, examples: Sequence[Example], embed: bool) -> None:
        self.page = page
        with gr.Row(elem_id="head", equal_height=True):
            if not embed:
                gr.Markdown(f"# {TITLE}\nAsk about images.", elem_id="title")
            self.model = gr.Dropdown([], label="Model", scale=0, min_width=200, elem_id="model")
            again = gr.Button(RELOAD, scale=0, min_width=130, size="sm", elem_id="reload-models")
        self.notice = gr.Markdown(elem_id="notice")
        with gr.Tab("Chat"):
            self.chat = ChatTab(page, self.model, examples)
        self.compare = None
        if page.parts:
            with gr.Tab("Compare"):
                self.compare = CompareTab(page, self.model, examples)
        self.opened, self.chat_id = gr.JSON(visible="hidden"), gr.Textbox(visible="hidden")
        looked = again.click(self.look, [self.model], [self.model, self.notice], **PRIVATE)
        learned = [answered.then for answered in self.chat.answers]  # workers predict times by those of each answer
        for changed in (looked.then, self.model.input, *learned):
            changed(self.fit, [self.model], self.controls, **PRIVATE)

    @property
    def settings(self) -> list[Settings]:
        """The plug-ins' settings of both tabs."""
        sides = [] if self.compare is None else self.compare.sides
        return [self.chat.settings, *(side.settings for side in sides)]

    @property
    def controls(self) -> list[Any]:
        """The plug-ins' controls of both tabs."""
        return [control for settings in self.settings for control in settings.inputs]

    @property
    def outputs(self) -> list[Any]:
        """What is shown as the page is opened."""
        folds = [*self.chat.folds, *(self.compare.folds if self.compare else [])]
        return [self.model, self.notice, self.chat_id, self.chat.chat, *self.chat.outputs, *folds]

    def fit(self, model: str | None) -> Updates:
        """Return updates of the controls for the chosen model."""
        state = self.page.worker_state(model)
        return [update for settings in self.settings for update in settings.fit(state)]

    def look(self, wanted: str | None, request: gr.Request, refresh: bool = True) -> tuple[Any, str]:
        """Return the models to choose from, the wanted one chosen, or the address's; and a notice."""
        found, notice = self.page.models(refresh)
        wanted = wanted or dict(request.query_params).get("model")
        chosen = wanted if wanted in found else (found[0] if found else None)
        return gr.Dropdown(choices=found, value=chosen), notice

    def open(self, opened: Mapping[str, Any] | None, request: gr.Request) -> Updates:
        """Return what a page shows that is opened: a new conversation, that of its tab, or that of a link."""
        opened = opened or {}
        chat = self.conversation(opened)
        model, notice = self.look(chat.model, request, self.page.reload_models)
        folds = [gr.Accordion(open=not opened.get("narrow"))] * (len(self.outputs) - 4 - len(self.chat.outputs))
        return [model, notice, chat.id, chat, *self.chat.everything(chat), *folds]

    def conversation(self, opened: Mapping[str, Any]) -> WebChat:
        """Return the conversation that a page is opened with."""
        if shared := opened.get("shared"):
            try:
                chat = self.page.shared.find(str(shared)).copy()
                chat.hint = SHARED
            except LlavaError as error:
                chat = WebChat(hint=str(error))
        else:
            chat = self.page.kept.find(str(opened.get("kept"))) or WebChat()
        self.page.kept.keep(chat)
        return chat


def build(page: Page, examples: Sequence[Example], embed: bool = False) -> gr.Blocks:
    """Build the page. embed: without title, for use inside another page."""
    blocks: gr.Blocks
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(LOOK_S, KEPT_S)) as blocks:
        demo = DemoPage(page, examples, embed)
        shown = blocks.load(demo.open, [demo.opened], demo.outputs, js=browser_code.OPENED, **PRIVATE)
        shown.then(None, [demo.chat_id], None, js=browser_code.KEEP, **PRIVATE)
        shown.then(demo.fit, [demo.model], demo.controls, **PRIVATE)
        blocks.load(None, None, None, js=browser_code.NAME_FILES, **PRIVATE)
    return blocks
