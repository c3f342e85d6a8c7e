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
    assert [update[0][-1]["content"] for update in updates] == ["sun", "sunny"]
    assert [update[1:] for update in updates] == [[SKIP, SKIP], [SKIP, "reply 1"]]
    body = page.client.requests[0]
    assert (body["temperature"], body["max_new_tokens"], body["strength"]) == (0.0, 7, 0.25)


def test_answer_shows_the_panels_the_conversations_images(tab, image_file) -> None:
    chat, _, _ = tab.ask({"text": "What is this?", "files": [str(image_file)] * 2}, None, "m")
    assert list(tab.answer(chat, {}, *SAMPLING, 0.25))[-1][2] == "reply 1, 2 images"
    assert all(png.startswith(b"\x89PNG") for png in chat.images)


def test_answer_leaves_a_field_out_whose_control_is_empty(tab, page) -> None:
    list(tab.answer(ask(tab), {}, *SAMPLING, ""))
    assert "strength" not in page.client.requests[0]


def test_answer_that_fails_keeps_the_text_and_shows_why(tab, page) -> None:
    page.client.failure = LlavaError("the worker was lost")
    updates = tab.answer(ask(tab), {}, *SAMPLING, 1.0)
    assert [next(updates)[0][-1]["content"] for _ in range(2)] == ["sun", "sun"]
    with pytest.raises(gr.Error, match="the worker was lost"):
        next(updates)


@pytest.mark.parametrize("turns_before", [0, 1])
def test_answer_that_is_refused_gives_the_question_back(tab, page, image_file, turns_before) -> None:
    chat = None
    for _ in range(turns_before):
        chat = ask(tab, "Before?", chat)
        list(tab.answer(chat, {}, *SAMPLING, 1.0))
    asked = {"text": "What is this?", "files": [str(image_file)]}
    chat, _, _ = tab.ask(asked, chat, "m")
    page.client.refusal = LlavaError("the prompt is too long")
    updates = tab.answer(chat, {}, *SAMPLING, 1.0)
    shown, box, _ = next(updates)
    assert [one["content"] for one in shown] == ["Before?", "sunny"][: 2 * turns_before]
    assert box.value["text"] == "What is this?" and len(box.value["files"]) == 1
    with pytest.raises(gr.Error, match="too long"):
        next(updates)
    page.client.refusal = None
    chat = ask(tab, "What?", chat)
    assert [update[0][-1]["content"] for update in tab.answer(chat, {}, *SAMPLING, 1.0)] == ["sun", "sunny"]
    assert "What is this?" not in page.client.requests[-1]["prompt"]


def test_question_with_an_image_tag_is_refused_before_it_is_in_the_chat(tab) -> None:
    chat = ask(tab)
    with pytest.raises(gr.Error, match="leave it out"):
        ask(tab, "What is <image>?", chat)
    assert [turn.question for turn in chat.turns] == ["What is this?"]


def test_answer_with_an_image_tag_does_not_end_the_conversation(tab, page) -> None:
    page.client.text = "an <im<image>age> of two"
    chat = ask(tab)
    list(tab.answer(chat, {}, *SAMPLING, 1.0))
    list(tab.answer(ask(tab, "And?", chat), {}, *SAMPLING, 1.0))
    assert "<image>" not in page.client.requests[-1]["prompt"]
    assert "an  of two" in page.client.requests[-1]["prompt"]


def test_errors_and_answers_are_shown_literally(tab, page) -> None:
    page.client.text = "a<b and c>d"
    chat = ask(tab, "1<2?")
    (*_, last) = tab.answer(chat, {}, *SAMPLING, 1.0)
    assert [one["content"] for one in last[0]] == [
        "<div><p>1&#60;2?</p></div>",
        "<div><p>a&#60;b and c&#62;d</p></div>",
    ]
    page.client.refusal = LlavaError("no <img src=x>")
    chat = ask(tab, "Again?", chat)
    with pytest.raises(gr.Error) as raised:
        list(tab.answer(chat, {}, *SAMPLING, 1.0))
    assert raised.value.message == "no &#60;img src&#61;x&#62;"


def test_answer_without_a_question_shows_why(tab) -> None:
    with pytest.raises(gr.Error, match="no question yet"):
        next(tab.answer(None, {}, *SAMPLING, 1.0))


def test_ask_again_removes_the_last_answer(tab) -> None:
    chat = ask(tab)
    list(tab.answer(chat, {}, *SAMPLING, 1.0))
    again, shown = tab.ask_again(chat)
    assert again is chat and shown == [{"role": "user", "content": "What is this?"}]
    assert tab.ask_again(None) == [None, []]


def test_shown_chat_is_empty_once_it_was_cleared(tab) -> None:
    assert tab.shown_chat(None) == []
    assert tab.shown_chat(ask(tab)) == [{"role": "user", "content": "What is this?"}]


def test_forget_empties_conversation_and_panels(tab) -> None:
    assert tab.forget(None) == [None, [], "start"]
    assert tab.forget(ask(tab)) == [None, [], "start"]


@pytest.mark.parametrize("end", ["stop", "forget", "another question"])
@pytest.mark.parametrize("fails", [False, True])
def test_answer_that_is_not_wanted_any_more_ends(tab, page, end, fails) -> None:
    """And changes nothing, nor complains where its worker is lost afterwards."""
    if fails:
        page.client.failure = LlavaError("the worker was lost")
    chat = ask(tab)
    updates = tab.answer(chat, {}, *SAMPLING, 1.0)
    assert next(updates)[0][-1]["content"] == "sun"
    if end == "stop":
        tab.stop_answer(chat)
    elif end == "forget":
        tab.forget(chat)
    else:
        ask(tab, "Another?", chat)
        page.client.failure = None
        assert len(list(tab.answer(chat, {}, *SAMPLING, 1.0))) == 2
    assert list(updates) == ([[[], SKIP, "start"]] if end == "forget" else [])
    expected = {"stop": ["sun"], "forget": [], "another question": ["sun", "sunny"]}
    assert [turn.answer for turn in chat.turns] == expected[end]
    tab.stop_answer(None)


def test_vote_is_logged_once_there_is_an_answer(tab, page) -> None:
    chat = ask(tab)
    with pytest.raises(gr.Error, match="no answer to vote on"):
        tab.vote("upvote", chat)
    list(tab.answer(chat, {}, *SAMPLING, 1.0))
    tab.vote("upvote", chat)
    assert len(list(page.log.folder.glob("*-conv.json"))) == 1


def test_vote_that_the_disk_does_not_take_says_so(tab, page, monkeypatch) -> None:
    chat = ask(tab)
    list(tab.answer(chat, {}, *SAMPLING, 1.0))

    def full(kind, chat) -> bool:
        raise OSError(28, "No space left on device", "/var/votes")

    monkeypatch.setattr(page.log, "add", full)
    with pytest.raises(gr.Error, match="could not be kept") as raised:
        tab.vote("upvote", chat)
    assert "/var" not in raised.value.message
