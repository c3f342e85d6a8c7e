"""The comparison tab's event handlers, without a browser."""

import gradio as gr
import pytest

from llava.errors import LlavaError
from llava.serve.web.compare_tab import START, CompareTab

ASKED = {"text": "What is this?", "files": []}
SAMPLING = (0.0, 1.0, 7)  # temperature, top_p, max_new_tokens


@pytest.fixture
def tab(page) -> CompareTab:
    with gr.Blocks():
        return CompareTab(page, gr.Dropdown([]), [])


def view(tab, comparison) -> dict:
    stop, again, status, shown, *sides = tab.view(comparison)
    answers = [[message["content"] for message in side] for side in sides[::2]]
    return {
        "can": [stop["interactive"], again["interactive"]],
        "status": status,
        "shown": shown,
        "answers": answers,
        "panels": sides[1::2],
    }


def test_ask_answers_one_side_after_the_other_each_once_without_being_timed(tab, page) -> None:
    comparison, *_ = tab.ask(ASKED, "m", None)
    assert view(tab, comparison)["can"] == [True, False]
    lines = [view(tab, comparison)["status"] for _ in tab.answer(comparison, comparison.number, *SAMPLING, 0.25, 0.75)]
    asked = [(body["strength"], body["max_new_tokens"]) for body in page.client.requests]
    assert asked == [(0.25, 1), (0.25, 7), (0.75, 1), (0.75, 7)]
    assert all(body["strength_kept"] for body in page.client.requests), "what makes two answers comparable"
    assert any("A</span><p>Asked once without being timed" in line for line in lines)
    assert any("B</span><p>First token after" in line for line in lines)
    shown = view(tab, comparison)
    assert shown["answers"] == [["sunny"], ["sunny"]] and shown["panels"] == ["answers: 1"] * 2
    assert (shown["can"], shown["status"]) == ([False, True], "")
    assert "Both answers are the same" in shown["shown"] and "<th scope='row'>letters</th>" in shown["shown"]


def test_side_that_fails_says_why_and_the_other_one_is_asked(tab, page) -> None:
    page.client.refusal = LlavaError("the worker was lost")
    comparison, *_ = tab.ask(ASKED, "m", None)
    list(tab.answer(comparison, comparison.number, *SAMPLING, 1.0, 1.0))
    shown = view(tab, comparison)
    assert all("The worker was lost." in said[-1] for said in shown["answers"])
    assert shown["shown"] == "" and shown["can"] == [False, True]


def test_ask_without_a_model_says_why(tab, page) -> None:
    comparison, *_ = tab.ask(ASKED, None, None)
    list(tab.answer(comparison, comparison.number, *SAMPLING, 1.0, 1.0))
    shown = view(tab, comparison)
    assert "no model is being served" in shown["status"] and shown["shown"] == START
    assert page.client.requests == []


@pytest.mark.parametrize("updates_before", [1, 3, 6])
def test_stop_asks_nothing_more(tab, page, updates_before) -> None:
    comparison, *_ = tab.ask(ASKED, "m", None)
    updates = tab.answer(comparison, comparison.number, *SAMPLING, 1.0, 1.0)
    for _ in range(updates_before):
        next(updates)
    asked = len(page.client.requests)
    tab.stop_answers(comparison)
    list(updates)
    assert len(page.client.requests) == asked
    assert view(tab, comparison)["can"] == [False, True]
    assert any("You stopped this answer." in said[-1] for said in view(tab, comparison)["answers"])


def test_question_stops_the_one_before(tab, page) -> None:
    first, *_ = tab.ask(ASKED, "m", None)
    updates = tab.answer(first, first.number, *SAMPLING, 1.0, 1.0)
    for _ in range(3):
        next(updates)
    second, *_ = tab.ask({"text": "And this?", "files": []}, "m", first)
    *_, last = updates
    assert set(map(str, last)) == {str(gr.skip())}, "what is shown is the second one's"
    list(tab.answer(second, second.number, *SAMPLING, 1.0, 1.0))
    assert view(tab, second)["answers"] == [["sunny"], ["sunny"]]


def test_answers_that_were_due_to_an_earlier_question_are_not_given_to_a_later_one(tab, page) -> None:
    """Their event may wait in Gradio's queue, with the settings of the earlier question."""
    before, *_, first = tab.ask(ASKED, "m", None)
    comparison, *_, second = tab.ask({"text": "And this?", "files": []}, "m", before)
    list(tab.answer(comparison, first, *SAMPLING, 0.1, 0.2))
    assert page.client.requests == []
    list(tab.answer(comparison, second, *SAMPLING, 0.3, 0.4))
    assert [body["strength"] for body in page.client.requests] == [0.3, 0.3, 0.4, 0.4]
    assert view(tab, comparison)["answers"] == [["sunny"], ["sunny"]]
