"""The web demo's page: a chat with one model, and one question under two settings side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from llava.errors import LlavaError
from llava.serve.web.client import WebClient
from llava.serve.web.conversation_state import WebChat
from llava.serve.web.demo_part import DemoPart
from llava.serve.web.vote_log import VoteLog

TITLE = "LLaVA"
NO_MODELS = (
    "**No model is being served.** Start a worker: `python -m llava.serve.model_worker`, and choose *Look again*."
)
CSS = """
.gradio-container { max-width: 1280px !important; margin: auto; }
footer { display: none !important; }
.execution-plan table { width: 100%; font-size: 0.85rem; }
.execution-plan th, .execution-plan td { padding: 2px 8px !important; border: none !important; text-align: left; }
.execution-plan th { font-weight: normal; white-space: nowrap; }
#look-again { align-self: end; }
#notice { color: var(--error-text-color, #b00020); }
@media (max-width: 640px) { .gradio-container { padding: 8px !important; } }
"""
Updates = list[Any]


@dataclass
class Settings:
    """Components whose values go into a request, and one plug-in panel each."""

    parts: Sequence[DemoPart]
    fields: dict[str, Any] = field(default_factory=dict)
    panels: list[Any] = field(default_factory=list)

    def make_controls(self) -> None:
        """The plug-ins' controls, here."""
        for part in self.parts:
            self.fields |= part.controls()

    def make_panels(self) -> None:
        """The plug-ins' panels, here."""
        for part in self.parts:
            self.panels += part.panel()

    def shown(self, reply: Mapping[str, Any], memory: dict[int, Any]) -> Updates:
        """Values for all panels. ``memory``: one dict a part, kept for the browser's session."""
        values: Updates = []
        for number, part in enumerate(self.parts):
            values += part.show(reply, memory.setdefault(number, {}))
        return values


@dataclass
class Page:
    """What the page's events share. Nothing of a visitor is kept here; that is in Gradio's session state."""

    client: WebClient
    log: VoteLog
    parts: Sequence[DemoPart]
    reload_models: bool = False

    def models(self, refresh: bool) -> tuple[list[str], str]:
        """Models to choose from, and a notice where there are none."""
        try:
            found = self.client.models(refresh)
        except LlavaError as error:
            return [], f"**{error}**"
        return found, "" if found else NO_MODELS

    def replies(self, chat: WebChat, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Chunks of the last turn's answer, which is kept in the chat as it grows."""
        with closing(self.client.answer(body)) as chunks:
            for part in chunks:
                chat.turns[-1].answer = part["text"][len(body["prompt"]) :].strip()
                yield part


def messages(chat: WebChat) -> list[dict[str, Any]]:
    """The conversation for ``gr.Chatbot``."""
    shown: list[dict[str, Any]] = []
    for turn in chat.turns:
        content: list[Any] = [gr.Image(picture.open(), show_label=False) for picture in turn.pictures]
        shown += [{"role": "user", "content": part} for part in (*content, turn.question) if part]
        if turn.answer is not None:
            shown.append({"role": "assistant", "content": turn.answer or "…"})
    return shown


def sampling_controls() -> dict[str, Any]:
    """Upstream's parameters: field -> slider."""
    with gr.Accordion("Parameters", open=False):
        return {
            "temperature": gr.Slider(0, 1, 0, step=0.1, label="Temperature", info="0 is greedy"),
            "top_p": gr.Slider(0.05, 1, 1, step=0.05, label="Top-p"),
            "max_new_tokens": gr.Slider(1, 1024, 256, step=1, label="Max output tokens"),
        }


def build(page: Page, examples: Sequence[tuple[str, str]], embed: bool = False) -> gr.Blocks:
    """The page. examples: (picture's path, question). embed: without title, for use inside another page."""
    from llava.serve.web.chat_tab import chat_tab
    from llava.serve.web.compare_tab import compare_tab

    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 86400)) as blocks:
        if not embed:
            gr.Markdown(f"# {TITLE}\nAsk about pictures.")
        notice = gr.Markdown(elem_id="notice")
        with gr.Row():
            model = gr.Dropdown([], label="Model", scale=4, elem_id="model")
            again = gr.Button("Look again", scale=0, min_width=120, size="sm", elem_id="look-again")
        with gr.Tab("Chat"):
            chat_tab(page, model, examples)
        if page.parts:
            with gr.Tab("Compare"):
                compare_tab(page, model, examples)

        def look(request: gr.Request, refresh: bool = True) -> tuple[Any, str]:
            found, why = page.models(refresh)
            wished = dict(request.query_params).get("model")
            chosen = wished if wished in found else (found[0] if found else None)
            return gr.Dropdown(choices=found, value=chosen), why

        def open_page(request: gr.Request) -> tuple[Any, str]:
            return look(request, page.reload_models)

        blocks.load(open_page, None, [model, notice], api_visibility="private")
        again.click(look, None, [model, notice], api_visibility="private")
    return blocks
