"""The demo's page: which tabs it has, which models it offers, which conversation it opens with."""

from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import pytest

from llava.errors import LlavaError
from llava.serve.web.components import NO_MODELS
from llava.serve.web.conversation_state import WebChat
from llava.serve.web.page import SHARED, DemoPage, build

ANSWERED = {"text": "p A test.", "finish_reason": "stop"}


def tabs_of(blocks: gr.Blocks) -> list[str]:
    return [block.label for block in blocks.blocks.values() if isinstance(block, gr.Tab)]


@pytest.fixture
def demo(page, image_file) -> DemoPage:
    with gr.Blocks():
        return DemoPage(page, [(str(image_file), "What is this?")], embed=False)


@pytest.fixture
def chat() -> WebChat:
    chat = WebChat("m", "v1")
    chat.ask("What is this?", [])
    chat.begin()
    chat.take(ANSWERED, "p")
    return chat


def opened(demo: DemoPage, **known) -> dict:
    """What a page shows that is opened; ``known``: what the browser says."""
    request = SimpleNamespace(query_params={})
    values = demo.open({"kept": None, "shared": None, "narrow": False, **known}, request)
    assert len(values) == len(demo.outputs)
    model, _, chat_id, chat, shown, status = values[:6]
    return {"model": model.value, "id": chat_id, "chat": chat, "shown": shown, "status": status, "folds": values[-2:]}


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


def test_page_opens_empty_with_the_first_model(demo) -> None:
    shown = opened(demo)
    assert (shown["model"], shown["shown"], shown["status"]) == ("m", [], "")
    assert shown["id"] == shown["chat"].id


def test_models_that_are_looked_for_again_leave_the_choice_as_it_is(demo, page) -> None:
    page.client.models = lambda refresh: ["a", "b"]
    of_address = SimpleNamespace(query_params={"model": "a"})
    chosen = [demo.look(wanted, of_address)[0].value for wanted in ("b", None, "stopped")]
    assert chosen == ["b", "a", "a"]


def test_page_that_is_loaded_anew_goes_on_with_its_conversation(demo, page, chat) -> None:
    page.kept.keep(chat)
    shown = opened(demo, kept=chat.id)
    assert [message["content"] for message in shown["shown"]] == ["What is this?", "A test."]
    assert page.kept.find(shown["id"]).turns == shown["chat"].turns, "and can be loaded anew once more"
    assert opened(demo, kept="forgotten")["shown"] == []


def test_page_opens_with_the_conversation_of_a_link(demo, page, chat) -> None:
    shown = opened(demo, shared=page.shared.add(chat), kept=chat.id)
    assert [message["content"] for message in shown["shown"]] == ["What is this?", "A test."]
    assert SHARED[:20] in shown["status"]


def test_link_to_no_conversation_says_so(demo) -> None:
    shown = opened(demo, shared="x" * 22)
    assert shown["shown"] == [] and "no conversation at this link" in shown["status"]


@pytest.mark.parametrize("narrow", [True, False])
def test_examples_are_folded_on_a_phone(demo, narrow) -> None:
    assert [fold.open for fold in opened(demo, narrow=narrow)["folds"]] == [not narrow] * 2


def test_controls_fit_the_chosen_model(demo, page) -> None:
    assert [update.label for update in demo.fit("m")] == ["of m"] * 3, "in the chat and on both sides"

    def lost(model: str) -> dict:
        raise LlavaError("lost")

    page.client.worker_state = lost
    assert [update.label for update in demo.fit("m")] == ["of nothing"] * 3


def test_only_answers_go_through_the_queue(page) -> None:
    """What is asked through the queue as its stream closes waits for another event; a click must not."""
    blocks = build(page, [])
    queued = {function.name for function in blocks.fns.values() if function.queue and function.fn is not None}
    assert queued == {"answer"}
