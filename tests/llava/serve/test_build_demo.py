"""The demo's page, built for a program that launches it itself."""

from types import SimpleNamespace

import gradio as gr
import pytest

from llava.errors import LlavaError, OptionError
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


UPSTREAMS = {  # what upstream's parser gives
    "host": "0.0.0.0", "port": None, "controller_url": "http://localhost:10000", "concurrency_count": 5,
    "model_list_mode": "reload", "share": False, "moderate": False, "embed": False,
}  # fmt: skip


def test_build_demo_takes_upstreams_parsed_flags(monkeypatch, tmp_path, arguments_of):
    pages = []
    building = gradio_web_server.build
    monkeypatch.setattr(gradio_web_server, "build", lambda page, *rest: pages.append(page) or building(page, *rest))
    monkeypatch.setattr(gradio_web_server, "args", arguments_of(UPSTREAMS))
    assert isinstance(gradio_web_server.build_demo(embed_mode=False), gr.Blocks)
    monkeypatch.setattr(gradio_web_server, "args", arguments_of({**UPSTREAMS, "log_dir": str(tmp_path)}))
    gradio_web_server.build_demo(embed_mode=False)
    assert [page.log.folder for page in pages] == [gradio_web_server.parse_arguments([]).log_dir, tmp_path]
    assert all(page.reload_models and not page.moderate for page in pages)


def test_get_model_list_takes_an_object_with_the_controllers_address(served, monkeypatch):
    monkeypatch.setattr(gradio_web_server, "args", SimpleNamespace(controller_url=served.controller.address))
    assert gradio_web_server.get_model_list() == ["tiny"]


def test_moderation_needs_its_key_at_the_start(monkeypatch, flags, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    flags("--moderate")
    for key in (None, "", "ключ"):
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        if key is not None:
            monkeypatch.setenv("OPENAI_API_KEY", key)
        with pytest.raises(OptionError, match="OPENAI_API_KEY"):
            gradio_web_server.build_demo(embed_mode=False)
        with pytest.raises(OptionError, match="OPENAI_API_KEY"):
            gradio_web_server.serve(gradio_web_server.args)
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert gradio_web_server.make_page(gradio_web_server.args, None).moderate
