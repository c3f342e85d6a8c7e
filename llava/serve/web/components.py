"""Components and state that the demo's tabs share: plug-in settings, sampling controls, the field of a question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from llava.errors import LlavaError
from llava.serve.web import browser_code
from llava.serve.web.client import WebClient
from llava.serve.web.conversation_state import Answered, Turn, WebChat
from llava.serve.web.demo_part import DemoPart
from llava.serve.web.kept_chats import KeptChats
from llava.serve.web.markup import literal
from llava.serve.web.shared_chats import SharedChats
from llava.serve.web.vote_log import VoteLog

RELOAD = "Reload models"
NO_MODELS = (
    f"**No model is being served.** Start a worker: `python -m llava.serve.model_worker`, and choose *{RELOAD}*."
)
NO_MODEL_CHOSEN = f"no model is being served; start a worker, and choose {RELOAD}"
FILE_TYPES = [".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"]  # the endings of ``REQUEST_FORMATS``
_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
STREAMED: dict[str, Any] = {**_QUIET, "trigger_mode": "multiple"}
"""Of events that give an answer: the demo has no API, and says itself how an answer goes on. Several at a time: the
page would otherwise leave out the answer to what is asked while an answer is due."""
PRIVATE: dict[str, Any] = {**_QUIET, "queue": False}
"""Of all other events: a reply for each request. Gradio closes the queue's stream as an event ends, and what is asked
just then through the queue is answered only when another event opens the stream again."""
Updates = list[Any]
"""New values for an event's output components, in their order."""
Example = tuple[str, str]
"""An image's path and a question about it."""


@dataclass
class Page:
    """What the page's events share. A visitor's data is not kept here but in Gradio's session state.

    kept: conversations for pages that are loaded anew; shared: those that have links. moderate: whether questions that
    OpenAI's moderation flags are refused.
    """

    client: WebClient
    log: VoteLog
    parts: Sequence[DemoPart]
    reload_models: bool = False
    kept: KeptChats = field(default_factory=KeptChats)
    moderate: bool = False

    @property
    def shared(self) -> SharedChats:
        """The conversations that visitors have given links, next to the votes."""
        return SharedChats(self.log.folder / "shared")

    def models(self, refresh: bool) -> tuple[list[str], str]:
        """Return the models to choose from, and a notice where there are none."""
        try:
            found = self.client.models(refresh)
        except LlavaError as error:
            return [], f"**{literal(str(error))}**"
        return found, "" if found else NO_MODELS

    def check(self, asked: Mapping[str, Any]) -> None:
        """Raise ``LlavaError`` for the value of a question field whose text is flagged, where the page moderates."""
        text = asked.get("text")
        if self.moderate and text:
            from llava.utils import moderation_msg, violates_moderation  # imports torch, needed for nothing else here

            if violates_moderation(text):
                raise LlavaError(moderation_msg)

    def new_chat(self, model: str | None) -> WebChat:
        """Return a new conversation with ``model``. Raises ``LlavaError`` where none is chosen or served."""
        if not model:
            raise LlavaError(NO_MODEL_CHOSEN)
        state = self.client.worker_state(model)
        return WebChat(model, state["conv_mode"], worker=state)

    def worker_state(self, model: str | None) -> Mapping[str, Any]:
        """Return what the worker of a model says at ``/ready``; nothing where there is none that answers."""
        try:
            return self.client.worker_state(model) if model else {}
        except LlavaError:
            return {}  # the question says why

    def replies(self, chat: WebChat, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the chunks of the last turn's answer, and keep in the chat what becomes of it, a failure too.

        The first one is empty: the answer was asked for. It ends early where ``chat`` is stopped, cleared or asked
        again meanwhile.
        """
        number = chat.begin()
        yield {}
        if chat.answers != number:
            return
        part: dict[str, Any] = {}
        why = "the answer ended without its last part; please ask again"
        with closing(self.client.answer(body)) as chunks:
            try:
                for part in chunks:
                    if chat.answers != number:
                        return
                    chat.take(part, body["prompt"])
                    yield part
            except LlavaError as error:
                part, why = {}, str(error)
        if chat.answers != number or chat.live is None:
            return
        if chat.mode is None and part and chat.turns[-1].answer:  # upstream's workers do not mark a last part
            chat.take({**part, "finish_reason": "stop"}, body["prompt"])
        else:
            chat.fail(why)


@dataclass
class Settings:
    """The plug-ins' components of one answer: controls that become fields of a request, and panels about the reply.

    side: one of ``SIDES`` in a comparison.
    """

    parts: Sequence[DemoPart]
    side: str = ""
    controls: list[list[Any]] = field(default_factory=list)  # of each part: its controls, then its settings
    panels: list[Any] = field(default_factory=list)

    def make_controls(self) -> None:
        """Add the plug-ins' controls at this position of the page."""
        self.controls = [list(part.controls(self.side)) for part in self.parts]

    def make_settings(self) -> None:
        """Add the plug-ins' controls that are seldom used, after ``make_controls``."""
        for part, controls in zip(self.parts, self.controls, strict=True):
            controls += part.settings()

    def make_panels(self) -> None:
        """Add the plug-ins' panels at this position of the page."""
        for part in self.parts:
            self.panels += part.panels()

    @property
    def inputs(self) -> list[Any]:
        """All controls, in the order of ``fields`` and ``fit``."""
        return [control for controls in self.controls for control in controls]

    def fields(self, values: Iterator[Any]) -> dict[str, Any]:
        """Take the controls' values off an event's; return a request's fields."""
        taken: dict[str, Any] = {}
        for part, controls in zip(self.parts, self.controls, strict=True):
            taken |= part.fields([next(values) for _ in controls])
        return taken

    def fit(self, state: Mapping[str, Any]) -> Updates:
        """Return updates of the controls for the model whose worker says ``state``."""
        return [update for part in self.parts for update in part.fit(state)]

    def show(self, answers: Sequence[Answered], images: Sequence[bytes], state: Mapping[str, Any]) -> Updates:
        """Return values for all panels after the last of these answers."""
        return [value for part in self.parts for value in part.show(answers, images, state)]

    def show_chat(self, chat: WebChat) -> Updates:
        """Return values for all panels by what a conversation has come to."""
        if chat.live is None:
            return self.show(chat.answered, chat.images, chat.worker)
        live = chat.live.notes, chat.answered, chat.worker
        return [value for part in self.parts for value in part.show_live(*live)]


def sampling_controls() -> dict[str, Any]:
    """Make a slider for each of upstream's sampling parameters; return them by the request's field."""
    return {
        "temperature": gr.Slider(0, 1, 0, step=0.1, label="Temperature", info="0 is greedy decoding"),
        "top_p": gr.Slider(0.05, 1, 1, step=0.05, label="Top-p"),
        "max_new_tokens": gr.Slider(1, 1024, 256, step=1, label="Max output tokens"),
    }


def take_values(controls: Mapping[str, Any], values: Iterator[Any]) -> dict[str, Any]:
    """Take the next of an event's values for each of ``controls``; return them by their names."""
    return {name: next(values) for name in controls}


def question_box(label: str, placeholder: str, elem_id: str, autofocus: bool = False) -> gr.MultimodalTextbox:
    """Make a field for a question with images."""
    return gr.MultimodalTextbox(
        file_types=FILE_TYPES,
        file_count="multiple",
        label=label,
        placeholder=placeholder,
        sources=["upload"],
        autofocus=autofocus,
        elem_id=elem_id,
        elem_classes="question",
    )


def ask_question(chat: WebChat, asked: Mapping[str, Any]) -> None:
    """Append the value of a question field to a chat. Raises ``LlavaError``; then nothing has changed."""
    chat.ask(asked.get("text") or "", list(asked.get("files") or []))


def answer_number() -> gr.Number:
    """Make what hands the number of the answer that is due from the event that asks to the one that answers.

    The page sends it with the settings of the moment: an event that has waited in Gradio's queue does not answer a
    later question with the settings of an earlier one.
    """
    return gr.Number(precision=0, visible="hidden")


def status_line(elem_id: str) -> gr.HTML:
    """Make a line that says what happens, also to those who cannot see it."""
    return gr.HTML("", elem_id=elem_id, elem_classes="status", js_on_load=browser_code.STATUS)


def question_again(turn: Turn) -> gr.MultimodalTextbox:
    """Return the value of a question field that asks ``turn`` again; without images that were deleted meanwhile."""
    files = [image.path for image in turn.images if image.path and Path(image.path).is_file()]
    return gr.MultimodalTextbox(value={"text": turn.question, "files": files})


def add_examples(examples: Sequence[Example], box: gr.MultimodalTextbox) -> list[gr.Accordion]:
    """Add examples that fill the field ``box`` when they are clicked; return what folds them, nothing without any."""
    if not examples:
        return []
    with gr.Accordion("Examples", open=True, elem_classes="examples") as folded:
        gr.Examples([[{"text": text, "files": [path]}] for path, text in examples], [box], label="")
    return [folded]


def unchanged(components: Sequence[Any]) -> Updates:
    """Return the last update of an event whose outputs another one shows by then: Gradio sends it once more."""
    return [gr.skip()] * len(components)


def changes(updates: Iterator[Updates]) -> Iterator[Updates]:
    """Yield an event's updates without the values that are those of the update before: Gradio draws these anew.

    The last one comes once more with all of its values: of updates that come close together, Gradio's page may take
    the newer one's "unchanged" for both.
    """
    before: Updates = []
    for update in updates:
        same = [bool(before) and old == new for old, new in zip(before or update, update, strict=True)]
        yield [gr.skip() if is_same else new for is_same, new in zip(same, update, strict=True)]
        before = update
    yield before
