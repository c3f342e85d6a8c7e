"""The states of the demo's page in a headless Chromium: waiting, answering, stopped, failed, reloaded."""

import re

import pytest

from llava.errors import LlavaError

pytestmark = pytest.mark.browser
ENABLED = "() => [...document.querySelectorAll('.buttons button')].filter((one) => !one.disabled).map((one) => one.id)"
ANSWERS = re.compile("/queue/join")  # how the page asks for an answer
ANSWERED = {"regenerate", "clear", "upvote", "downvote", "flag", "share", "download"}


@pytest.fixture
def opened(open_demo):
    return open_demo()


def ask(tab, question: str) -> None:
    tab.fill("#question textarea", question)
    tab.locator("#question textarea").press("Enter")


def shows(tab, text: str) -> None:
    """Wait until the conversation shows a text."""
    tab.locator("#conversation").get_by_text(text, exact=True).first.wait_for()


def hides(tab, text: str) -> None:
    tab.wait_for_function("(text) => !document.querySelector('#conversation').innerText.includes(text)", arg=text)


def can(tab, expected: set[str]) -> None:
    """Wait until these buttons of the chat can be clicked, and no others."""
    chat_only = f"({ENABLED})().filter((id) => !id.startsWith('compare')).sort().join()"
    tab.wait_for_function(f"(wanted) => {chat_only} == wanted", arg=",".join(sorted(expected)))


def test_page_says_position_and_time_while_it_waits(opened, page) -> None:
    page.client.waits = {"queue_position": 3}
    page.client.begins.clear()
    page.client.goes_on.clear()
    can(opened, set())
    ask(opened, "What?")
    status = opened.locator("#status")
    status.get_by_text("Number 3 in the queue").wait_for()
    assert status.locator("[role=status]").count() == 1, "those who cannot see it hear it"
    first, later = (status.locator(".clock").inner_text() for _ in range(2) if not opened.wait_for_timeout(200))
    assert int(first.removesuffix(" ms")) < int(later.removesuffix(" ms")), "the clock goes on"
    can(opened, {"stop", "clear"})
    page.client.begins.set()
    status.get_by_text("First token after 50 ms; writing").wait_for()
    shows(opened, "sun")
    page.client.goes_on.set()
    shows(opened, "sunny")
    status.get_by_text("3 tokens, 5.0 ms each").wait_for()
    can(opened, ANSWERED)
    opened.click("#upvote")
    can(opened, ANSWERED - {"upvote", "downvote", "flag"})


def test_answer_that_failed_is_tried_again_in_its_bubble(opened, page) -> None:
    page.client.failure = LlavaError("the worker was lost")
    ask(opened, "What?")
    shows(opened, "The answer is not complete.")
    assert "sun" in opened.inner_text("#conversation") and opened.locator(".toast-wrap *").count() == 0
    page.client.failure = None
    opened.get_by_role("button", name="Retry").click()
    shows(opened, "sunny")
    hides(opened, "The answer is not complete.")
    assert opened.get_by_role("button", name="Retry").count() == 0


def test_question_that_was_refused_is_changed(opened, page) -> None:
    page.client.refusal = LlavaError("the prompt is too long")
    ask(opened, "a long question")
    shows(opened, "There is no answer.")
    opened.get_by_role("button", name="Change the question").click()
    opened.wait_for_function("document.querySelector('#question textarea').value == 'a long question'")
    hides(opened, "a long question")
    page.client.refusal = None
    ask(opened, "a short one")
    shows(opened, "sunny")
    assert "a long question" not in page.client.requests[-1]["prompt"]


def test_answer_that_is_stopped_keeps_its_text(opened, page) -> None:
    page.client.goes_on.clear()
    ask(opened, "What?")
    shows(opened, "sun")
    opened.click("#stop")
    shows(opened, "You stopped this answer.")
    can(opened, {"regenerate", "clear", "share", "download"})
    page.client.goes_on.set()
    opened.click("#regenerate")
    shows(opened, "sunny")
    hides(opened, "You stopped this answer.")


def test_question_asked_while_an_answer_is_due_is_answered(opened, page) -> None:
    """With the settings that it was asked with; the answer before is stopped."""
    page.client.goes_on.clear()
    ask(opened, "the first question")
    shows(opened, "sun")
    opened.locator("input[type=number]:visible").first.fill("0.25")
    opened.keyboard.press("Tab")
    with opened.expect_response(ANSWERS):
        ask(opened, "the second question")
    shows(opened, "You stopped this answer.")
    opened.locator("#status").get_by_text("First token after 50 ms; writing").wait_for()
    page.client.goes_on.set()
    shows(opened, "sunny")
    can(opened, ANSWERED)
    assert [body["strength"] for body in page.client.requests] == [1, 0.25]
    assert "the second question" in page.client.requests[1]["prompt"]


def test_question_asked_of_both_sides_while_answers_are_due_is_answered(opened, page) -> None:
    page.client.goes_on.clear()
    opened.get_by_role("tab", name="Compare").click()
    for question in ("the first question", "the second question"):
        opened.fill("#compare-question textarea", question)
        with opened.expect_response(ANSWERS):
            opened.locator("#compare-question textarea").press("Enter")
    page.client.goes_on.set()
    opened.wait_for_selector("#differences table")
    assert [body["strength"] for body in page.client.requests if "second" in body["prompt"]] == [1, 1, 0.5, 0.5]
    assert sum("first" in body["prompt"] for body in page.client.requests) <= 1


def test_models_that_are_looked_for_again_leave_choice_and_conversation(opened, page) -> None:
    page.client.models = lambda refresh: ["a", "m"]
    ask(opened, "the first question")
    shows(opened, "sunny")
    with opened.expect_response(lambda reply: "/run/" in reply.url or "/call/" in reply.url):
        opened.click("#reload-models")
    opened.locator("#model input").click()
    opened.get_by_role("option", name="a", exact=True).wait_for()
    opened.keyboard.press("Escape")
    assert opened.input_value("#model input") == "m"
    ask(opened, "the second question")
    shows(opened, "the second question")
    assert "the first question" in opened.inner_text("#conversation")


def test_conversation_that_is_cleared_while_it_is_answered_stays_cleared(opened, page) -> None:
    page.client.text = "sun " * 9
    page.client.goes_on.clear()
    ask(opened, "the first question")
    shows(opened, "sun")
    opened.click("#clear")
    hides(opened, "first")
    page.client.goes_on.set()
    ask(opened, "the second question")
    opened.locator("#conversation").get_by_text("sun sun").wait_for()
    assert "the first question" not in opened.inner_text("#conversation")
    assert "the first question" not in page.client.requests[-1]["prompt"]


def test_page_that_is_loaded_anew_in_an_answer_can_try_it_again(opened, page) -> None:
    page.client.goes_on.clear()
    ask(opened, "What?")
    shows(opened, "sun")
    opened.reload()
    opened.locator("#conversation").get_by_text("The page was loaded anew").wait_for()
    page.client.goes_on.set()
    opened.get_by_role("button", name="Retry").click()
    shows(opened, "sunny")
    opened.reload()
    shows(opened, "sunny")


def test_tabs_of_one_browser_have_their_own_conversations(open_demo) -> None:
    first = open_demo()
    ask(first, "the first question")
    shows(first, "sunny")
    second = open_demo()
    assert "first" not in second.inner_text("#conversation")


def test_icons_are_only_those_that_do_something(opened) -> None:
    ask(opened, "What?")
    shows(opened, "sunny")
    icons = [icon for icon in opened.locator("#conversation button").all() if icon.is_visible()]
    assert icons == []


def test_files_of_a_question_are_named_to_those_who_cannot_see_them(opened, image_file) -> None:
    opened.set_input_files("#question input[type=file]", str(image_file))
    opened.locator("#question [role=group][aria-label='File thumbnail'] img").wait_for()
    assert opened.locator("#question [role=listitem]").count() == 0


def test_page_is_used_by_keyboard_alone(opened, page) -> None:
    """From the field that has the focus: ask, and vote on the answer."""
    opened.wait_for_function("document.activeElement.closest('#question')")
    opened.keyboard.type("What?")
    opened.keyboard.press("Enter")
    shows(opened, "sunny")
    can(opened, ANSWERED)
    for _ in range(20):
        opened.keyboard.press("Tab")
        if opened.evaluate("document.activeElement.id") == "upvote":
            break
    opened.keyboard.press("Enter")
    opened.locator("#status").get_by_text("Thank you for your vote.").wait_for()


def test_dark_page_has_light_letters(open_demo) -> None:
    shades = {}
    for scheme in ("light", "dark"):
        tab = open_demo(color_scheme=scheme)
        colour = tab.evaluate("getComputedStyle(document.querySelector('#title h1')).color")
        shades[scheme] = sum(map(int, re.findall(r"\d+", colour)[:3]))
    assert shades["light"] < 200 < 500 < shades["dark"]
