"""The demo's comparison: one question under two settings, one after the other, so that their times can be compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from llava.errors import LlavaError
from llava.serve.web.conversation_state import WebChat
from llava.serve.web.page import Page, Settings, Updates, sampling_controls


def compare_tab(page: Page, model: gr.Dropdown, examples: Sequence[tuple[str, str]]) -> None:
    """The tab's components and what they do."""
    memory = gr.State({})
    box = gr.MultimodalTextbox(
        file_types=["image"], file_count="multiple", placeholder="One question, asked under both settings…",
        show_label=False, sources=["upload"], elem_id="compare-question",
    )  # fmt: skip
    if examples:
        gr.Examples([[{"text": text, "files": [path]}] for path, text in examples], [box], label="Examples")
    sides: list[tuple[Settings, gr.Textbox]] = []
    with gr.Row():
        for name in ("left", "right"):
            with gr.Column(min_width=320, elem_id=f"compare-{name}"):
                settings = Settings(page.parts)
                settings.make_controls()
                answer_box = gr.Textbox(label="Answer", lines=2, interactive=False)
                settings.make_panels()
                sides.append((settings, answer_box))
    sampling = sampling_controls()
    outputs = [component for settings, answer_box in sides for component in (answer_box, *settings.panels)]

    def ask(asked: Any, model: str | None, memory: dict[int, Any], *values: Any) -> Iterator[Updates]:
        """The left answer, then the right one."""
        shown: Updates = [gr.skip() for _ in outputs]
        given = iter(values)
        common = {name: next(given) for name in sampling}
        fields = [{name: next(given) for name in settings.fields} for settings, _ in sides]
        try:
            if not model:
                raise LlavaError("no model is being served; start a worker, and choose Look again")
            place = 0
            for (settings, _), own in zip(sides, fields, strict=True):
                chat = WebChat(model, page.client.conv_mode(model))
                chat.ask(asked.get("text") or "", list(asked.get("files") or []))
                for part in page.replies(chat, chat.request(common, own)):
                    shown[place] = chat.turns[-1].answer
                    if "finish_reason" in part:
                        shown[place + 1 : place + 1 + len(settings.panels)] = settings.shown(part, memory)
                    yield [*shown, memory]
                place += 1 + len(settings.panels)
        except LlavaError as error:
            yield [*shown, memory]
            raise gr.Error(str(error), duration=None, print_exception=False) from error

    controls = [component for settings, _ in sides for component in settings.fields.values()]
    box.submit(ask, [box, model, memory, *sampling.values(), *controls], [*outputs, memory], api_visibility="private")
