"""The chat tab's event handlers, without a browser."""

import gradio as gr
import pytest

from llava.errors import LlavaError
from llava.serve.web.chat_tab import ChatTab

SAMPLING = (0.0, 1.0, 7)  # temperature, top_p, max_new_tokens
SKIP = gr.skip()


@pytest.fixture
def tab(page) -> ChatTab:
    with gr.Blocks():
        return ChatTab(page, gr.Dropdown([]), [])


def ask(tab, question="What is this?", chat=None, model="m"):
    chat, _, _ = tab.ask({"text": question, "files": []}, chat, model)
    return chat


def test_ask_appends_the_question_and_empties_the_field(tab) -> None:
    chat, shown, box = tab.ask({"text": "What is this?", "files": []}, None, "m")
    assert shown == [{"role": "user", "content": "What is this?"}]
    assert (chat.model, chat.mode, box.value["text"]) == ("m", "vicuna_v1", "")


def test_ask_of_another_model_begins_a_new_conversation(tab) -> None:
    first = ask(tab)
    assert ask(tab, chat=first) is first
    assert ask(tab, chat=first, model="other") is not first


@pytest.mark.parametrize(("question", "model", "message"), [("w5", None, "no model"), (" ", "m", "nothing to ask")])
def test_ask_that_is_not_possible_shows_why(tab, question, model, message) -> None:
    with pytest.raises(gr.Error, match=message):
        ask(tab, question, model=model)


def test_answer_streams_text_and_updates_the_panels_at_the_end(tab, page) -> None:
    chat, memory = ask(tab), {}
    updates = list(tab.answer(chat, memory, *SAMPLING, 0.25))
    assert [update[2][-1]["content"] for update in updates] == ["sun", "sunny"]
    assert [update[3] for update in updates] == [SKIP, "reply 1"]
    body = page.client.requests[0]
    assert (body["temperature"], body["max_new_tokens"], body["strength"]) == (0.0, 7, 0.25)


def test_answer_that_fails_keeps_the_text_and_shows_why(tab, page) -> None:
    page.client.failure = LlavaError("the worker was lost")
    updates = tab.answer(ask(tab), {}, *SAMPLING, 1.0)
    assert [next(updates)[2][-1]["content"] for _ in range(2)] == ["sun", "sun"]
    with pytest.raises(gr.Error, match="the worker was lost"):
        next(updates)


def test_answer_without_a_question_shows_why(tab) -> None:
    with pytest.raises(gr.Error, match="no question yet"):
        next(tab.answer(None, {}, *SAMPLING, 1.0))


def test_ask_again_removes_the_last_answer(tab) -> None:
    chat = ask(tab)
    list(tab.answer(chat, {}, *SAMPLING, 1.0))
    again, shown = tab.ask_again(chat)
    assert again is chat and shown == [{"role": "user", "content": "What is this?"}]
    assert tab.ask_again(None) == [None, []]


def test_forget_empties_conversation_and_panels(tab) -> None:
    assert tab.forget() == [None, [], "start"]


def test_vote_is_logged_once_there_is_an_answer(tab, page) -> None:
    chat = ask(tab)
    with pytest.raises(gr.Error, match="no answer to vote on"):
        tab.vote("upvote", chat)
    list(tab.answer(chat, {}, *SAMPLING, 1.0))
    tab.vote("upvote", chat)
    assert len(list(page.log.folder.glob("*-conv.json"))) == 1
