"""The demo's page, built for a program that launches it itself."""

import gradio as gr
import pytest

from llava.errors import LlavaError
from llava.serve import gradio_web_server


@pytest.fixture
def flags(monkeypatch):
    """``flags(*words)`` sets the flags as upstream's programs do."""
    return lambda *words: monkeypatch.setattr(gradio_web_server, "args", gradio_web_server.parse_arguments([*words]))


@pytest.mark.parametrize("embed", [True, False])
def test_build_demo_gives_the_page_with_or_without_title(embed):
    blocks = gradio_web_server.build_demo(embed, cur_dir="./", concurrency_count=3)
    assert isinstance(blocks, gr.Blocks)
    titles = [b for b in blocks.blocks.values() if isinstance(b, gr.Markdown) and str(b.value).startswith("# ")]
    assert bool(titles) != embed
    assert blocks._queue.default_concurrency_limit == 3


def test_get_model_list_asks_the_controller_of_the_flags(served, flags):
    flags("--controller-url", served.controller.address)
    assert gradio_web_server.get_model_list() == ["tiny"]


def test_get_model_list_without_a_controller_raises(flags):
    flags("--controller-url", "http://127.0.0.1:9")
    with pytest.raises(LlavaError, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        gradio_web_server.get_model_list()
