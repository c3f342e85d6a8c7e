"""Components and state that the demo's tabs share: plug-in settings, sampling controls, messages, events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from llava.errors import LlavaError
from llava.serve.web.client import WebClient
from llava.serve.web.conversation_state import Turn, WebChat
from llava.serve.web.demo_part import DemoPart
from llava.serve.web.markup import literal, shown_text
from llava.serve.web.vote_log import VoteLog

NO_MODELS = (
    "**No model is being served.** Start a worker: `python -m llava.serve.model_worker`, and choose *Look again*."
)
FILE_TYPES = [".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"]  # the endings of ``REQUEST_FORMATS``
PRIVATE: dict[str, Any] = {"api_visibility": "private"}  # of every event: the demo has no API
Updates = list[Any]
"""New values for an event's output components, in their order."""
Example = tuple[str, str]
"""An image's path and a question about it."""


@dataclass
class Page:
    """What the page's events share. A visitor's data is not kept here but in Gradio's session state."""

    client: WebClient
    log: VoteLog
    parts: Sequence[DemoPart]
    reload_models: bool = False

    def models(self, refresh: bool) -> tuple[list[str], str]:
        """Return the models to choose from, and a notice where there are none."""
        try:
            found = self.client.models(refresh)
        except LlavaError as error:
            return [], f"**{literal(str(error))}**"
        return found, "" if found else NO_MODELS

    def new_chat(self, model: str | None) -> WebChat:
        """Return a new conversation with ``model``. Raises ``LlavaError`` where none is chosen or served."""
        if not model:
            raise LlavaError("no model is being served; start a worker, and choose Look again")
        return WebChat(model, self.client.conv_mode(model))

    def replies(self, chat: WebChat, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the chunks of the last turn's answer, and keep the answer in the chat as it grows.

        It ends early, without an error, where ``chat`` is stopped, cleared or asked again meanwhile. Raises LlavaError.
        """
        chat.answers += 1
        number = chat.answers
        with closing(self.client.answer(body)) as chunks:
            try:
                for part in chunks:
                    if chat.answers != number:
                        return
                    chat.turns[-1].answer = part["text"][len(body["prompt"]) :].strip()
                    yield part
            except LlavaError:
                if chat.answers == number:
                    raise


@dataclass
class Settings:
    """The plug-ins' components of one answer: controls that become fields of a request, and panels about the reply."""

    parts: Sequence[DemoPart]
    fields: dict[str, Any] = field(default_factory=dict)
    panels: list[Any] = field(default_factory=list)

    def make_controls(self) -> None:
        """Add the plug-ins' controls at this position of the page."""
        for part in self.parts:
            self.fields |= part.controls()

    def make_panels(self) -> None:
        """Add the plug-ins' panels at this position of the page."""
        for part in self.parts:
            self.panels += part.panel()

    def panel_values(self, reply: Mapping[str, Any], memory: dict[int, Any], images: Sequence[bytes] = ()) -> Updates:
        """Return values for all panels.

        memory: one dict for each part, kept for the browser's session; images: the conversation's, as PNG files.
        """
        values: Updates = []
        for number, part in enumerate(self.parts):
            values += part.show(reply, memory.setdefault(number, {}), images)
        return values


def messages(chat: WebChat) -> list[dict[str, Any]]:
    """Return the conversation in the form of ``gr.Chatbot``."""
    shown: list[dict[str, Any]] = []
    for turn in chat.turns:
        images: list[Any] = [gr.Image(image.open(), show_label=False) for image in turn.images]
        shown += [{"role": "user", "content": part} for part in (*images, shown_text(turn.question)) if part]
        if turn.answer is not None:
            shown.append({"role": "assistant", "content": shown_text(turn.answer) or "…"})
    return shown


def sampling_controls() -> dict[str, Any]:
    """Make a slider for each of upstream's sampling parameters; return them by the request's field."""
    with gr.Accordion("Parameters", open=False):
        return {
            "temperature": gr.Slider(0, 1, 0, step=0.1, label="Temperature", info="0 is greedy decoding"),
            "top_p": gr.Slider(0.05, 1, 1, step=0.05, label="Top-p"),
            "max_new_tokens": gr.Slider(1, 1024, 256, step=1, label="Max output tokens"),
        }


def take_values(controls: Mapping[str, Any], values: Iterator[Any]) -> dict[str, Any]:
    """Take the next of an event's values for each of ``controls``; return those that are not "" by their names."""
    taken = {name: next(values) for name in controls}
    return {name: value for name, value in taken.items() if value != ""}


def question_box(placeholder: str, elem_id: str, autofocus: bool = False) -> gr.MultimodalTextbox:
    """Make a field for a question with images."""
    return gr.MultimodalTextbox(
        file_types=FILE_TYPES,
        file_count="multiple",
        placeholder=placeholder,
        show_label=False,
        sources=["upload"],
        autofocus=autofocus,
        elem_id=elem_id,
    )


def question_again(turn: Turn) -> gr.MultimodalTextbox:
    """Return the value of a question field that asks ``turn`` again; without images that were deleted meanwhile."""
    files = [image.path for image in turn.images if Path(image.path).is_file()]
    return gr.MultimodalTextbox(value={"text": turn.question, "files": files})


def add_examples(examples: Sequence[Example], box: gr.MultimodalTextbox) -> None:
    """Add examples that fill the field ``box`` when they are clicked; nothing where there are none."""
    if examples:
        gr.Examples([[{"text": text, "files": [path]}] for path, text in examples], [box], label="Examples")


def ask_question(chat: WebChat, asked: Mapping[str, Any]) -> None:
    """Append the value of a question field to a chat. Raises ``LlavaError``."""
    chat.ask(asked.get("text") or "", list(asked.get("files") or []))


def shown_error(error: LlavaError | str, duration_s: float | None = None) -> gr.Error:
    """Return an error that Gradio shows the visitor, by default until it is closed, and does not log.

    Gradio takes its text for HTML; it may quote what others wrote.
    """
    return gr.Error(literal(str(error)), duration=duration_s, print_exception=False)
