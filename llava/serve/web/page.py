"""The web demo's page: a chat with one model, and one question under two settings side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from llava.serve.web.chat_tab import ChatTab
from llava.serve.web.compare_tab import CompareTab
from llava.serve.web.components import PRIVATE, Example, Page
from llava.serve.web.uploads import KEPT_S, LOOK_S

TITLE = "LLaVA"
CSS = """
.gradio-container { max-width: 1280px !important; margin: auto; }
footer { display: none !important; }
.execution-plan table { width: 100%; font-size: 0.85rem; }
.execution-plan th, .execution-plan td { padding: 2px 8px !important; border: none !important; text-align: left; }
.execution-plan th { font-weight: normal; white-space: nowrap; }
.kept-patches { display: flex; flex-wrap: wrap; gap: 8px; margin: 8px 0; }
.kept-patches svg { flex: 1 1 160px; max-width: 260px; border-radius: 4px; }
#look-again { align-self: end; }
#notice { color: var(--error-text-color, #b00020); }
@media (max-width: 640px) { .gradio-container { padding: 8px !important; } }
"""


def build(page: Page, examples: Sequence[Example], embed: bool = False) -> gr.Blocks:
    """Build the page. embed: without title, for use inside another page."""
    blocks: gr.Blocks
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(LOOK_S, KEPT_S)) as blocks:
        if not embed:
            gr.Markdown(f"# {TITLE}\nAsk about images.")
        notice = gr.Markdown(elem_id="notice")
        with gr.Row():
            model = gr.Dropdown([], label="Model", scale=4, elem_id="model")
            again = gr.Button("Look again", scale=0, min_width=120, size="sm", elem_id="look-again")
        with gr.Tab("Chat"):
            ChatTab(page, model, examples)
        if page.parts:
            with gr.Tab("Compare"):
                CompareTab(page, model, examples)

        def look(request: gr.Request, refresh: bool = True) -> tuple[Any, str]:
            found, notice = page.models(refresh)
            wanted = dict(request.query_params).get("model")
            chosen = wanted if wanted in found else (found[0] if found else None)
            return gr.Dropdown(choices=found, value=chosen), notice

        def open_page(request: gr.Request) -> tuple[Any, str]:
            return look(request, page.reload_models)

        blocks.load(open_page, None, [model, notice], **PRIVATE)
        again.click(look, None, [model, notice], **PRIVATE)
    return blocks
