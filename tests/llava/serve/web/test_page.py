"""The demo's page: which tabs it has, which models it offers."""

from dataclasses import replace

import gradio as gr
import pytest

from llava.errors import LlavaError
from llava.serve.web.components import NO_MODELS
from llava.serve.web.page import build


def tabs_of(blocks: gr.Blocks) -> list[str]:
    return [block.label for block in blocks.blocks.values() if isinstance(block, gr.Tab)]


def test_build_shows_the_comparison_only_with_plug_in_parts(page) -> None:
    assert tabs_of(build(page, [])) == ["Chat", "Compare"]
    assert tabs_of(build(replace(page, parts=[]), [])) == ["Chat"]


@pytest.mark.parametrize(
    ("found", "expected"), [(["a", "b"], (["a", "b"], "")), ([], ([], NO_MODELS)), (None, ([], "**lost**"))]
)
def test_page_models_come_with_a_notice_where_there_are_none(page, found, expected) -> None:
    def models(refresh: bool) -> list[str]:
        if found is None:
            raise LlavaError("lost")
        return found

    page.client.models = models
    assert page.models(refresh=True) == expected
