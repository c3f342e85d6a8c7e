"""What strangers write and upload, in a headless Chromium: shown literally, nothing fetched, nothing stuck."""

import pytest
from PIL import Image

from llava.errors import LlavaError
from llava.serve.gradio_web_server import create_app, demo_middleware

WAIT_MS = 60_000
pytestmark = pytest.mark.browser
OUTSIDE = "http://outside.invalid/"
ANSWER = (
    f"a<b and c>d ![x]({OUTSIDE}a.png) <img src={OUTSIDE}b.png> [link]({OUTSIDE}) {OUTSIDE}c $$x^2$$ **bold** `x<y`\n\n"
    f"<a href={OUTSIDE} style='position:fixed;inset:0'>cover</a><style>body{{display:none}}</style>\n\n- one\n- two"
)


@pytest.fixture
def opened(browser, page, listen, tmp_path, monkeypatch):
    """The demo with a fake controller, opened in a browser; ``opened.outside``: addresses that are not the demo's."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    page.client.text = ANSWER
    page.parts = []
    address = listen(create_app(page, demo_middleware(), tmp_path / "uploads")).address
    tab = browser.new_page(viewport={"width": 1280, "height": 1000})
    tab.set_default_timeout(WAIT_MS)
    tab.outside, tab.complaints = [], []
    own = (address, "data:", "blob:")
    tab.on("request", lambda request: request.url.startswith(own) or tab.outside.append(request.url))
    tab.on("console", lambda message: message.type == "error" and tab.complaints.append(message.text))
    tab.goto(address)
    tab.wait_for_selector("#question textarea")
    tab.wait_for_function("document.querySelector('#model input').value == 'm'")
    yield tab
    tab.close()


def ask(tab, question: str) -> None:
    tab.fill("#question textarea", question)
    tab.locator("#question textarea").press("Enter")


def shown(tab) -> str:
    return tab.inner_text("#conversation")


def test_answer_of_a_stranger_is_text(opened, page) -> None:
    ask(opened, "is 1<2 and 3>2 <img src=http://outside.invalid/q.png>?")
    opened.get_by_text("two").wait_for()
    text = shown(opened)
    for part in (
        "a<b and c>d",
        f"![x]({OUTSIDE}a.png)",
        f"<img src={OUTSIDE}b.png>",
        "<a href=",
        "<style>body",
        "$$x^2$$",
    ):
        assert part in text
    assert "is 1<2 and 3>2 <img src" in text
    answer = opened.locator("#conversation .bot .prose").first
    assert (answer.locator("strong").inner_text(), answer.locator("code").inner_text()) == ("bold", "x<y")
    assert answer.locator("li").count() == 2
    assert opened.locator("#conversation .prose :is(img, a, style)").count() == 0
    page.client.refusal = LlavaError(f"refused <img src={OUTSIDE}t.png> a<b and c>d")
    ask(opened, "again")
    opened.get_by_text(f"refused <img src={OUTSIDE}t.png> a<b and c>d").wait_for()
    assert opened.outside == [] and opened.complaints == []


def test_question_that_was_refused_is_corrected(opened, page) -> None:
    page.client.refusal = LlavaError("the prompt is too long")
    ask(opened, "a long question")
    opened.get_by_text("the prompt is too long").wait_for()
    opened.wait_for_function("document.querySelector('#question textarea').value == 'a long question'")
    assert "a long question" not in shown(opened)
    page.client.refusal = None
    ask(opened, "a short one")
    opened.get_by_text("two").wait_for()
    assert "a long question" not in page.client.requests[-1]["prompt"]


ONLY_SECOND = """() => {
    const text = document.querySelector('#conversation').innerText
    return text.includes('second') && text.includes('two') && !text.includes('first')
}"""


def test_bin_of_the_chat_forgets_the_conversation(opened, page) -> None:
    ask(opened, "the first question")
    opened.get_by_text("two").wait_for()
    opened.locator("#conversation button[title=Clear]").first.click()
    opened.wait_for_function("!document.querySelector('#conversation').innerText.includes('first')")
    ask(opened, "the second question")
    opened.wait_for_function(ONLY_SECOND)
    assert "the first question" not in page.client.requests[-1]["prompt"]
    icons = {button.get_attribute("title") for button in opened.locator("#conversation button").all()}
    assert icons <= {"Clear", None}, "no icon that changes what is shown only"


@pytest.mark.parametrize("button", ["#clear", "#conversation button[title=Clear]"])
def test_conversation_that_is_cleared_while_it_is_answered_stays_cleared(opened, page, button) -> None:
    page.client.text = "sun " * 9
    page.client.goes_on.clear()
    ask(opened, "the first question")
    opened.get_by_text("sun").wait_for()
    opened.locator(button).first.click()
    opened.wait_for_function("!document.querySelector('#conversation').innerText.includes('first')")
    page.client.goes_on.set()
    ask(opened, "the second question")
    opened.get_by_text("sun sun").wait_for()
    assert "the first question" not in shown(opened)
    assert "the first question" not in page.client.requests[-1]["prompt"]


def test_upload_of_another_format_is_refused_without_a_path(opened, tmp_path) -> None:
    path = tmp_path / "drawing.png"
    Image.new("RGB", (16, 16), "red").save(path, "EPS")
    with opened.expect_response(lambda reply: "/upload" in reply.url):
        opened.set_input_files("#question input[type=file]", str(path))
    ask(opened, "what is this?")
    opened.get_by_text("image 1").wait_for()
    assert str(tmp_path) not in opened.inner_text("body")
