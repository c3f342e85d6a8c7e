"""The chat tab's event handlers, without a browser."""

from types import SimpleNamespace

import gradio as gr
import pytest

from llava.errors import LlavaError
from llava.serve.web.chat_tab import THANKS, ChatTab
from llava.serve.web.chat_view import CHANGE, RETRY
from llava.serve.web.conversation_state import STOPPED, WebChat

SAMPLING = (0.0, 1.0, 7)  # temperature, top_p, max_new_tokens
BUTTONS = ("stop", "retry", "clear", "upvote", "downvote", "flag", "share", "download")


@pytest.fixture
def tab(page) -> ChatTab:
    with gr.Blocks():
        return ChatTab(page, gr.Dropdown([]), [])


def ask(tab, question="What is this?", chat=None, model="m", files=()):
    return tab.ask({"text": question, "files": list(files)}, chat, model)[0]


def answered(tab, chat, strength=1.0):
    """All updates of an answer."""
    return list(tab.answer(chat, chat.answers, *SAMPLING, strength))


def enabled(tab, chat) -> set[str]:
    """The buttons that can be clicked."""
    values = tab.view(chat)[2:]
    return {name for name, value in zip(BUTTONS, values, strict=True) if value["interactive"]}


def said(tab, chat) -> list[str]:
    return [message["content"] for message in tab.view(chat)[0]]


def status(tab, chat) -> str:
    return tab.view(chat)[1]


def test_ask_appends_the_question_and_empties_the_field(tab) -> None:
    chat, box, shown, *_ = tab.ask({"text": "What is this?", "files": []}, None, "m")
    assert shown[0] == {"role": "user", "content": "What is this?"}
    assert (chat.model, chat.mode, box.value["text"]) == ("m", "vicuna_v1", "")
    assert "Sent" in status(tab, chat)


def test_ask_of_another_model_begins_a_new_conversation(tab) -> None:
    chat = ask(tab)
    answered(tab, chat)
    ask(tab, "And?", chat)
    assert len(chat.turns) == 2
    ask(tab, "Another?", chat, model="other")
    assert (chat.model, [turn.question for turn in chat.turns]) == ("other", ["Another?"])


@pytest.mark.parametrize(
    ("question", "model", "message"),
    [("w5", None, "no model"), (" ", "m", "nothing to ask"), ("an <image>", "m", "leave it out")],
)
def test_ask_that_is_not_possible_says_why_and_changes_nothing(tab, question, model, message) -> None:
    first = ask(tab)
    answered(tab, first)
    chat, box, *_ = tab.ask({"text": question, "files": []}, first, model)
    assert box == gr.skip() and [turn.question for turn in chat.turns] == ["What is this?"]
    assert message in status(tab, chat).replace("&#60;", "<") and "role='alert'" in status(tab, chat)
    ask(tab, "And now?", chat)
    assert message not in status(tab, chat)


def test_answer_of_an_upstream_worker_is_complete(tab, page, monkeypatch) -> None:
    """It names no template, and none of its chunks says that it is the last one."""

    def answer(body):
        page.client.requests.append(body)
        for text in page.client.text:
            yield {"text": f"{body['prompt']} {text}", "error_code": 0}
        if page.client.failure is not None:
            raise page.client.failure

    monkeypatch.setattr(page.client, "worker_state", lambda model: {"conv_mode": None})
    monkeypatch.setattr(page.client, "answer", answer)
    page.client.text = ["sun", "sunny"]
    chat = ask(tab)
    answered(tab, chat)
    assert (chat.turns[-1].answer, chat.turns[-1].failure) == ("sunny", None)
    assert said(tab, chat) == ["What is this?", "sunny"] and [one.answer for one in chat.answered] == ["sunny"]
    assert "upvote" in enabled(tab, chat)
    page.client.failure = LlavaError("the worker was lost")
    ask(tab, "And?", chat)
    answered(tab, chat)
    assert (chat.turns[-1].answer, chat.turns[-1].failure) == ("sunny", "the worker was lost")
    page.client.text, page.client.failure = [], None
    ask(tab, "And now?", chat)
    answered(tab, chat)
    assert "ended without its last part" in chat.turns[-1].failure


def test_answer_without_its_last_part_is_not_complete(tab, page, monkeypatch) -> None:
    monkeypatch.setattr(page.client, "answer", lambda body: (part for part in [{"text": f"{body['prompt']} sun"}]))
    chat = ask(tab)
    answered(tab, chat)
    assert chat.turns[-1].answer == "sun" and "ended without its last part" in chat.turns[-1].failure


def test_answer_streams_text_and_shows_panels_live_and_at_the_end(tab, page) -> None:
    page.client.waits = {"queue_position": 2}
    chat = ask(tab)
    updates = answered(tab, chat, 0.25)
    contents = [update[0][-1]["content"] for update in updates if isinstance(update[0], list)]
    assert contents[0].startswith("<div class='typing'") and contents[1:] == ["sun", "sunny", "sunny"]
    assert [update[-1] for update in updates if update[-1] != gr.skip()] == [
        "live: []",
        "live: ['queue_position']",
        "live: ['queue_position', 'time_to_first_token_ms']",
        "answers: 1",
        "answers: 1",
    ]
    body = page.client.requests[0]
    assert (body["temperature"], body["max_new_tokens"], body["strength"]) == (0.0, 7, 0.25)
    assert body["progress"] is True and "strength_kept" not in body


def test_answers_last_update_has_all_values(tab) -> None:
    """Of updates that come close together, Gradio's page may lose one that another without a change follows."""
    chat = ask(tab)
    last = answered(tab, chat)[-1]
    assert gr.skip() not in last and last == tab.everything(chat)


def test_status_says_position_then_time_to_the_first_token(tab, page) -> None:
    page.client.waits = {"queue_position": 2}
    chat, lines = ask(tab), []
    for _ in tab.answer(chat, chat.answers, *SAMPLING, 1.0):
        lines.append(status(tab, chat))
    assert lines[0].startswith("<p>Sent <span class='clock'")
    assert lines[1].startswith("<p>Number 2 in the queue <span class='clock'")
    assert lines[2] == "<p>First token after <strong>50 ms</strong>; writing</p>"
    assert lines[-1] == "<p>First token after <strong>50 ms</strong> · 3 tokens, 5.0 ms each · 60 ms in all</p>"


def test_answer_shows_the_panels_the_conversations_images(tab, image_file) -> None:
    chat = ask(tab, files=[str(image_file)] * 2)
    assert answered(tab, chat)[-1][-1] == "answers: 1, 2 images"
    assert all(png.startswith(b"\x89PNG") for png in chat.images)


def test_answer_leaves_a_field_out_whose_control_is_empty(tab, page) -> None:
    answered(tab, ask(tab), "")
    assert "strength" not in page.client.requests[0]


def test_buttons_can_be_clicked_where_they_have_something_to_do(tab, page) -> None:
    after = {"retry", "clear", "upvote", "downvote", "flag", "share", "download"}
    assert enabled(tab, None) == set()
    chat = ask(tab)
    assert enabled(tab, chat) == {"stop", "clear"}
    updates = tab.answer(chat, chat.answers, *SAMPLING, 1.0)
    next(updates), next(updates)
    assert enabled(tab, chat) == {"stop", "clear"}
    list(updates)
    assert enabled(tab, chat) == after
    tab.vote("upvote", chat)
    assert enabled(tab, chat) == after - {"upvote", "downvote", "flag"}, "one vote an answer"
    tab.ask_again(chat)
    answered(tab, chat)
    assert enabled(tab, chat) == after, "another answer, another vote"
    page.client.refusal = LlavaError("too long")
    ask(tab, "And?", chat)
    answered(tab, chat)
    assert enabled(tab, chat) == {"retry", "clear", "share", "download"}, "what was answered before can be shared"
    tab.forget(chat)
    assert enabled(tab, chat) == set()


def test_answer_that_fails_keeps_the_text_and_can_be_tried_again(tab, page) -> None:
    page.client.failure = LlavaError("the worker was lost")
    chat = ask(tab)
    answered(tab, chat)
    assert said(tab, chat)[1:] == [
        "sun",
        "<div class='failure'><strong>The answer is not complete.</strong> The worker was lost.</div>",
    ]
    assert [option["value"] for option in tab.view(chat)[0][-1]["options"]] == [RETRY]
    page.client.failure = None
    tab.choose(chat, SimpleNamespace(value=RETRY))
    assert answered(tab, chat)[-1][0][-1]["content"] == "sunny"
    assert len(page.client.requests) == 2 and page.client.requests[0] == page.client.requests[1]


def test_question_that_is_refused_goes_back_to_its_field(tab, page, image_file) -> None:
    page.client.refusal = LlavaError("the prompt is too long")
    chat = ask(tab, "a long question", files=[str(image_file)])
    answered(tab, chat)
    assert said(tab, chat)[-1] == (
        "<div class='failure'><strong>There is no answer.</strong> The prompt is too long.</div>"
    )
    assert [option["value"] for option in tab.view(chat)[0][-1]["options"]] == [RETRY, CHANGE]
    box, *_ = tab.choose(chat, SimpleNamespace(value=CHANGE))
    assert box.value["text"] == "a long question" and len(box.value["files"]) == 1
    assert chat.turns == []


def test_question_after_one_that_failed_replaces_it(tab, page) -> None:
    page.client.refusal = LlavaError("too long")
    chat = ask(tab, "a long question")
    answered(tab, chat)
    page.client.refusal = None
    ask(tab, "a short one", chat)
    answered(tab, chat)
    assert "a long question" not in page.client.requests[-1]["prompt"]


def test_answer_with_an_image_tag_does_not_end_the_conversation(tab, page) -> None:
    page.client.text = "an <im<image>age> of two"
    chat = ask(tab)
    answered(tab, chat)
    ask(tab, "And?", chat)
    answered(tab, chat)
    assert "<image>" not in page.client.requests[-1]["prompt"]
    assert "an  of two" in page.client.requests[-1]["prompt"]


def test_errors_and_answers_are_shown_literally(tab, page) -> None:
    page.client.text = "a<b and c>d"
    chat = ask(tab, "1<2?")
    answered(tab, chat)
    assert said(tab, chat) == ["<div><p>1&#60;2?</p></div>", "<div><p>a&#60;b and c&#62;d</p></div>"]
    page.client.refusal = LlavaError("no <img src=x>")
    ask(tab, "Again?", chat)
    answered(tab, chat)
    assert "No &#60;img src&#61;x&#62;." in said(tab, chat)[-1]


def test_answer_without_a_question_changes_nothing(tab) -> None:
    updates = [*tab.answer(None, None, *SAMPLING, 1.0), *tab.answer(WebChat("m"), 0, *SAMPLING, 1.0)]
    assert {str(value) for update in updates for value in update} == {str(gr.skip())}


def test_forget_empties_conversation_and_panels(tab, page) -> None:
    for chat in (None, ask(tab)):
        shown = tab.forget(chat)
        assert (shown[0], shown[1], shown[-1]) == ([], "", "start")


@pytest.mark.parametrize("end", ["stop", "forget", "another question"])
@pytest.mark.parametrize("fails", [False, True])
def test_answer_that_is_not_wanted_any_more_ends(tab, page, end, fails) -> None:
    """And changes nothing, nor complains where its worker is lost afterwards."""
    if fails:
        page.client.failure = LlavaError("the worker was lost")
    chat = ask(tab)
    updates = tab.answer(chat, chat.answers, *SAMPLING, 1.0)
    next(updates), next(updates)
    assert chat.turns[-1].answer == "sun"
    if end == "stop":
        tab.stop_answer(chat)
    elif end == "forget":
        tab.forget(chat)
    else:
        ask(tab, "Another?", chat)
        page.client.failure = None
        answered(tab, chat)
    *_, last = updates
    assert last == [gr.skip()] * len(tab.outputs), "what ends it has shown what there is, and may show more meanwhile"
    expected = {"stop": [("sun", STOPPED)], "forget": [], "another question": [("sun", STOPPED), ("sunny", None)]}
    assert [(turn.answer, turn.failure) for turn in chat.turns] == expected[end]
    tab.stop_answer(None)


def test_answer_that_was_due_to_an_earlier_question_is_not_given_to_a_later_one(tab, page) -> None:
    """Its event may wait in Gradio's queue, with the settings of the earlier question."""
    chat, *_, first = tab.ask({"text": "the first question", "files": []}, None, "m")
    *_, second = tab.ask({"text": "the second question", "files": []}, chat, "m")
    *_, refused = tab.ask({"text": " ", "files": []}, chat, "m")
    assert first is not None and second is not None and refused is None
    for number, strength in ((first, 0.1), (refused, 0.2), (second, 0.3), (second, 0.4)):
        list(tab.answer(chat, number, *SAMPLING, strength))
    assert [body["strength"] for body in page.client.requests] == [0.3]
    assert [turn.answer for turn in chat.turns] == ["sunny"]
    *_, again = tab.ask_again(chat)
    list(tab.answer(chat, second, *SAMPLING, 0.5))
    list(tab.answer(chat, again, *SAMPLING, 0.6))
    assert [body["strength"] for body in page.client.requests] == [0.3, 0.6]


def test_stopped_question_can_be_tried_again(tab) -> None:
    chat = ask(tab)
    number = chat.answers
    tab.stop_answer(chat)
    assert said(tab, chat)[-1] == "<div class='failure'>You stopped this answer.</div>"
    list(tab.answer(chat, number, *SAMPLING, 1.0))
    assert chat.turns[-1].answer is None, "the answer that was due does not begin"
    tab.choose(chat, SimpleNamespace(value=RETRY))
    answered(tab, chat)
    assert chat.turns[-1].answer == "sunny"


def test_vote_is_logged_once_there_is_an_answer(tab, page) -> None:
    chat = ask(tab)
    tab.vote("upvote", chat)
    assert not list(page.log.folder.glob("*")), "nothing to vote on yet"
    answered(tab, chat)
    tab.vote("upvote", chat)
    assert len(list(page.log.folder.glob("*-conv.json"))) == 1
    assert THANKS.removesuffix(".") in status(tab, chat)


def test_vote_that_the_disk_does_not_take_says_so(tab, page, monkeypatch) -> None:
    chat = ask(tab)
    answered(tab, chat)

    def full(kind, chat) -> bool:
        raise OSError(28, "No space left on device", "/var/votes")

    monkeypatch.setattr(page.log, "add", full)
    tab.vote("upvote", chat)
    assert "could not be kept" in status(tab, chat) and "var" not in status(tab, chat)
    assert "upvote" in enabled(tab, chat), "it can be tried again"


def test_shared_chat_is_found_by_its_link(tab, page) -> None:
    chat = ask(tab)
    assert tab.share_chat(chat) == [gr.skip()] * 3, "nothing to share yet"
    answered(tab, chat)
    chat_id, link, _ = tab.share_chat(chat)
    assert link["visible"] and [turn.answer for turn in page.shared.find(chat_id).turns] == ["sunny"]


def test_share_that_the_disk_does_not_take_says_so(tab, monkeypatch) -> None:
    def full(self, chat) -> str:
        raise OSError(28, "No space left on device", "/var/votes")

    chat = ask(tab)
    answered(tab, chat)
    monkeypatch.setattr("llava.serve.web.shared_chats.SharedChats.add", full)
    chat_id, link, line = tab.share_chat(chat)
    assert (chat_id, link["visible"]) == ("", False) and "could not be stored" in line and "var" not in line
