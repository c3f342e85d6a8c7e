"""Shows texts of strangers as HTML: paragraphs, lists, emphasis and code; anything else as it was written."""

from __future__ import annotations

import re
from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

# No HTML, no images, no links, no entities, no escapes: what is not in this list stays text.
RULES = ("list", "fence", "heading", "emphasis", "strikethrough", "backticks", "newline", "balance_pairs")
# Characters of which anything that reads the page's source again, for Markdown, formulas or addresses, could make more.
SPECIAL = re.compile(r"[^\w .,;?'+-]|_")


def shown_text(text: str) -> str:
    """Return a text as one line of HTML, for ``gr.Chatbot``. Its only attribute is a list's first number.

    A line of plain words stays as it is, as Gradio reads the source aloud to those who cannot see it.
    """
    rendered = _MARKDOWN.render(text).replace("\n", "")
    is_plain = rendered == f"<p>{text}</p>" and text[:1].isalnum()  # not a line of dashes, which Gradio draws
    is_plain = is_plain and "www." not in text.lower()  # of which it makes a link
    return text if is_plain or not text else f"<div>{rendered}</div>"


def literal(text: str) -> str:
    """Return HTML, and Markdown, that shows a text as it is: each special character as a reference by number."""
    return SPECIAL.sub(lambda found: f"&#{ord(found[0])};", text)


class _Literal(RendererHTML):
    """Renders texts with all their special characters as references, and no attributes."""

    def text(self, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
        return literal(tokens[index].content)

    def code_inline(self, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
        return f"<code>{literal(tokens[index].content)}</code>"

    def fence(self, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
        return f"<pre><code>{literal(tokens[index].content)}</code></pre>"


_MARKDOWN = MarkdownIt("zero", {"html": False, "breaks": True}, renderer_cls=_Literal).enable(list(RULES), True)
