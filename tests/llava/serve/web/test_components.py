"""What the demo's tabs share: questions that moderation flags."""

import gradio as gr
import pytest

from llava import utils
from llava.serve.web.chat_tab import ChatTab
from llava.serve.web.compare_tab import CompareTab


@pytest.fixture
def asked_of(monkeypatch, page):
    """The texts that moderation was asked about; it flags those with "bad"."""
    texts = []
    monkeypatch.setattr(utils, "violates_moderation", lambda text: texts.append(text) or "bad" in text)
    page.moderate = True
    asking = page.client.worker_state
    monkeypatch.setattr(
        page.client, "worker_state", lambda model: pytest.fail("asked") if texts[-1] == "bad" else asking(model)
    )
    return texts


def test_flagged_question_is_refused_and_nothing_is_sent(page, asked_of, image_file):
    with gr.Blocks():
        tab = ChatTab(page, gr.Dropdown([]), [])
    chat, box, *_, number = tab.ask({"text": "bad", "files": [str(image_file)]}, None, "m")
    assert (chat.turns, box, number) == ([], gr.skip(), None)
    assert utils.moderation_msg in tab.view(chat)[1]
    chat, *_, number = tab.ask({"text": "What is this?", "files": []}, chat, "m")
    list(tab.answer(chat, number, 0.0, 1.0, 7, 1.0))
    chat, _, *_, number = tab.ask({"text": "bad", "files": []}, chat, "m")
    assert [turn.question for turn in chat.turns] == ["What is this?"] and number is None
    assert len(page.client.requests) == 1 and asked_of == ["bad", "What is this?", "bad"]


def test_flagged_question_is_not_compared(page, asked_of):
    with gr.Blocks():
        tab = CompareTab(page, gr.Dropdown([]), [])
    comparison, *_ = tab.ask({"text": "bad", "files": []}, "m", None)
    assert comparison.chats == [] and comparison.hint == utils.moderation_msg
    list(tab.answer(comparison, comparison.number, 0.0, 1.0, 7, 1.0, 1.0))
    assert page.client.requests == [] and asked_of == ["bad"]


def test_page_without_moderation_asks_nobody(page, asked_of):
    page.moderate = False
    page.check({"text": "bad", "files": []})
    page.moderate = True
    page.check({"text": "", "files": ["a.png"]})
    page.check({})
    assert asked_of == []
