"""Texts of strangers as HTML: only the listed markup, every other character as it was written."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.serve.web.markup import literal, shown_text

TAGS = {"div", "p", "br", "ul", "ol", "li", "pre", "code", "em", "strong", "s", *(f"h{n}" for n in range(1, 7))}


class Page(HTMLParser):
    """Tags, attributes and text of HTML."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attributes) -> None:
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data) -> None:
        self.text += data


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("Plain words, with a comma.", "Plain words, with a comma."),
        ("", ""),
        ("**bold** and *em* and ~~s~~", "<div><p><strong>bold</strong> and <em>em</em> and <s>s</s></p></div>"),
        ("- a\n- b", "<div><ul><li>a</li><li>b</li></ul></div>"),
        ("3. a\n4. b", '<div><ol start="3"><li>a</li><li>b</li></ol></div>'),
        ("a `x` b", "<div><p>a <code>x</code> b</p></div>"),
        ("```py\na\n\nb\n```", "<div><pre><code>a&#10;&#10;b&#10;</code></pre></div>"),
        ("# A", "<div><h1>A</h1></div>"),
        ("a\nb", "<div><p>a<br>b</p></div>"),
        ("---", "<div><p>---</p></div>"),
        ("www.a.example", "<div><p>www.a.example</p></div>"),
    ],
)
def test_shown_text_has_the_listed_markup(text, html) -> None:
    assert shown_text(text) == html


HOSTILE = [
    "a<b and c>d",
    "![x](http://a.example/x.png)",
    "[x](javascript:alert(1))",
    "<img src=http://a.example/x.png>",
    "<a href='http://a.example' style='position:fixed;inset:0'>x</a>",
    "<script>alert(1)</script>",
    "<style>body{display:none}</style>",
    "<svg onload=alert(1)>",
    "http://a.example/ and a@b.example",
    "<http://a.example/>",
    "$$x^2$$ and \\(x\\)",
    "&lt;b&gt; &amp; &#60;i&#62;",
    "[x]: http://a.example/x",
    "<think>hidden</think>",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("around", ["{}", "**a** {}", "- {}", "`{}`", "```\n{}\n```", "# {}", "> {}"])
def test_shown_text_shows_all_else_literally(text, around) -> None:
    page = Page(shown_text(around.format(text)))
    assert set(page.tags) <= TAGS and page.attributes == []
    assert text in page.text


@settings(deadline=None, max_examples=300)
@given(
    st.text(alphabet="ab1 <>&[]()!:/$\\\"'=#;{}|^%@", max_size=40).filter(
        lambda text: not text.lstrip().startswith("#")
    )
)
def test_shown_text_without_markup_keeps_every_character(text) -> None:
    if re.match(r"\s*\d+[.)]", text):
        return
    assert Page(shown_text(text)).text.split() == text.split()


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=60) | st.text(alphabet="*_`~<>!()[]-+#1. \n\tab\"'=&:/", max_size=60))
def test_shown_text_of_anything_is_one_line_of_listed_tags(text) -> None:
    source = shown_text(text)
    page = Page(source)
    assert set(page.tags) <= TAGS and {name for name, _ in page.attributes} <= {"start"}
    assert "\n" not in source or source == text


@settings(deadline=None)
@given(st.text(max_size=40))
def test_literal_is_the_text_itself_once_read_as_html(text) -> None:
    source = literal(text)
    assert not set(source) & set('<>"`*[]()!\\$')
    if text.isprintable():
        assert Page(f"<p>{source}</p>").text == text
