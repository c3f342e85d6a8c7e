"""What strangers write and upload, in a headless Chromium: shown literally, nothing fetched, nothing stuck."""

import pytest
from PIL import Image

from llava.errors import LlavaError

pytestmark = pytest.mark.browser
OUTSIDE = "http://outside.invalid/"
ANSWER = (
    f"a<b and c>d ![x]({OUTSIDE}a.png) <img src={OUTSIDE}b.png> [link]({OUTSIDE}) {OUTSIDE}c $$x^2$$ **bold** `x<y`\n\n"
    f"<a href={OUTSIDE} style='position:fixed;inset:0'>cover</a><style>body{{display:none}}</style>\n\n- one\n- two"
)


@pytest.fixture
def answers(page) -> None:
    """What the model answers."""
    page.client.text = ANSWER
    page.parts = []


@pytest.fixture
def opened(answers, open_demo):
    """The demo of a model that answers as strangers might write."""
    return open_demo()


def ask(tab, question: str) -> None:
    tab.fill("#question textarea", question)
    tab.locator("#question textarea").press("Enter")


def shown(tab) -> str:
    return tab.inner_text("#conversation")


def test_answer_of_a_stranger_is_text(opened, page) -> None:
    ask(opened, "is 1<2 and 3>2 <img src=http://outside.invalid/q.png>?")
    opened.locator("#conversation").get_by_text("two").wait_for()
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
    opened.locator("#conversation").get_by_text(f"Refused <img src={OUTSIDE}t.png> a<b and c>d").wait_for()
    assert opened.outside == [] and opened.complaints == []


def test_upload_of_another_format_is_refused_without_a_path(opened, tmp_path) -> None:
    path = tmp_path / "drawing.png"
    Image.new("RGB", (16, 16), "red").save(path, "EPS")
    with opened.expect_response(lambda reply: "/upload" in reply.url):
        opened.set_input_files("#question input[type=file]", str(path))
    ask(opened, "what is this?")
    opened.locator("#status").get_by_text("image 1").wait_for()
    assert str(tmp_path) not in opened.inner_text("body")
