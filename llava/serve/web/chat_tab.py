"""The demo's chat: ask, stop, ask again, clear, vote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from llava.errors import LlavaError
from llava.serve.web.conversation_state import WebChat
from llava.serve.web.page import Page, Settings, Updates, messages, sampling_controls
from llava.serve.web.vote_log import VOTES

BUTTONS = {"upvote": "Good answer", "downvote": "Bad answer", "flag": "Flag it"}


def chat_tab(page: Page, model: gr.Dropdown, examples: Sequence[tuple[str, str]]) -> None:
    """The tab's components and what they do."""
    chat, memory = gr.State(None), gr.State({})  # a WebChat, once something was asked
    settings = Settings(page.parts)
    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            shown = gr.Chatbot(
                height=480, label="Conversation", buttons=["copy"], feedback_options=None, elem_id="conversation",
                placeholder="Drop or paste a picture into the field below, and ask about it.",
            )  # fmt: skip
            box = gr.MultimodalTextbox(
                file_types=["image"], file_count="multiple", placeholder="Ask about a picture…", show_label=False,
                sources=["upload"], autofocus=True, elem_id="question",
            )  # fmt: skip
            with gr.Row():
                votes = {vote: gr.Button(BUTTONS[vote], size="sm", min_width=70) for vote in VOTES}
            with gr.Row():
                stop = gr.Button("Stop", size="sm", min_width=80, elem_id="stop")
                retry = gr.Button("Regenerate", size="sm", min_width=80, elem_id="regenerate")
                clear = gr.Button("Clear", size="sm", min_width=80, elem_id="clear")
            if examples:
                gr.Examples([[{"text": text, "files": [path]}] for path, text in examples], [box], label="Examples")
        with gr.Column(scale=2, min_width=320):
            settings.make_controls()
            settings.make_panels()
            sampling = sampling_controls()

    names = [*sampling, *settings.fields]
    outputs = [chat, memory, shown, *settings.panels]

    def ask(asked: Any, chat: WebChat | None, model: str | None) -> tuple[Any, ...]:
        """Put the question; the field empties where it could be put."""
        try:
            if not model:
                raise LlavaError("no model is being served; start a worker, and choose Look again")
            if chat is None or model != chat.model:
                chat = WebChat(model, page.client.conv_mode(model))
            chat.ask(asked.get("text") or "", list(asked.get("files") or []))
        except LlavaError as error:
            raise gr.Error(str(error), duration=None, print_exception=False) from error
        return chat, messages(chat), gr.MultimodalTextbox(value=None)

    def answer(chat: WebChat | None, memory: dict[int, Any], *values: Any) -> Iterator[Updates]:
        """Stream the last question's answer."""
        if chat is None or not chat.turns:
            raise gr.Error("there is no question yet", print_exception=False)
        given = dict(zip(names, values, strict=True))
        body = chat.request({n: given[n] for n in sampling}, {n: given[n] for n in settings.fields})
        keep: Updates = [gr.skip() for _ in settings.panels]
        try:
            for part in page.replies(chat, body):
                panels = settings.shown(part, memory) if "finish_reason" in part else keep
                yield [chat, memory, messages(chat), *panels]
        except LlavaError as error:
            yield [chat, memory, messages(chat), *keep]
            raise gr.Error(str(error), duration=None, print_exception=False) from error

    def again(chat: WebChat | None) -> Updates:
        if chat is None:
            return [None, []]
        chat.ask_again()
        return [chat, messages(chat)]

    def forget() -> Updates:
        return [None, [], *settings.shown({}, {})]

    def vote(kind: str, chat: WebChat | None) -> None:
        if chat is None or chat.turns[-1].answer is None:
            raise gr.Error("there is no answer to vote on yet", print_exception=False)
        if not page.log.add(kind, chat):
            raise gr.Error("the log of today is full; the vote was not kept", print_exception=False)
        gr.Info("Thank you.")

    inputs = [chat, memory, *sampling.values(), *settings.fields.values()]
    private: dict[str, Any] = {"api_visibility": "private"}
    asked = box.submit(ask, [box, chat, model], [chat, shown, box], **private)
    running = [asked.success(answer, inputs, outputs, **private)]
    running.append(retry.click(again, [chat], [chat, shown], **private).success(answer, inputs, outputs, **private))
    stop.click(None, None, None, cancels=running, **private)
    clear.click(forget, None, [chat, shown, *settings.panels], cancels=running, **private)
    for kind, button in votes.items():
        button.click(lambda chat, kind=kind: vote(kind, chat), [chat], None, **private)
