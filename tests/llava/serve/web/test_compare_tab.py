"""The comparison tab's event handler, without a browser."""

import gradio as gr
import pytest

from llava.errors import LlavaError
from llava.serve.web.compare_tab import CompareTab

ASKED = {"text": "What is this?", "files": []}
SAMPLING = (0.0, 1.0, 7)  # temperature, top_p, max_new_tokens
SKIP = gr.skip()


@pytest.fixture
def tab(page) -> CompareTab:
    with gr.Blocks():
        return CompareTab(page, gr.Dropdown([]), [])


def test_ask_answers_the_left_side_then_the_right_one(tab, page) -> None:
    memory = {}
    updates = list(tab.ask(ASKED, "m", memory, *SAMPLING, 0.25, 0.75))
    assert [update[1:] for update in updates] == [
        ["sun", SKIP, SKIP, SKIP],
        ["sunny", "reply 1", SKIP, SKIP],
        ["sunny", "reply 1", "sun", SKIP],
        ["sunny", "reply 1", "sunny", "reply 2"],
    ]
    assert all(update[0] is memory for update in updates)
    assert [body["strength"] for body in page.client.requests] == [0.25, 0.75]
    assert [body["temperature"] for body in page.client.requests] == [0.0, 0.0]


def test_ask_that_fails_keeps_what_was_shown_and_shows_why(tab, page) -> None:
    page.client.failure = LlavaError("the worker was lost")
    updates = tab.ask(ASKED, "m", {}, *SAMPLING, 1.0, 1.0)
    assert [next(updates)[1] for _ in range(2)] == ["sun", "sun"]
    with pytest.raises(gr.Error, match="the worker was lost"):
        next(updates)


def test_ask_without_a_model_shows_why(tab) -> None:
    updates = tab.ask(ASKED, None, {}, *SAMPLING, 1.0, 1.0)
    next(updates)
    with pytest.raises(gr.Error, match="no model is being served"):
        next(updates)
