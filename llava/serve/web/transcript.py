"""Writes a conversation as one HTML page that needs nothing else, for visitors to keep."""

from __future__ import annotations

import html
from collections.abc import Mapping

from llava.serve.web.chat_view import times
from llava.serve.web.conversation_state import Turn, WebChat
from llava.serve.web.markup import literal, shown_text
from llava.serve.web.uploaded_image import jpeg_url

SHOWN_SIDE = 800  # pixels of an image in the page
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem }
:root { color-scheme: light dark }
article { border-top: 1px solid #8884; padding: 1rem 0 } img { max-width: 100%; max-height: 24rem; border-radius: 6px }
.question { font-weight: 600 } small { opacity: 0.8 }
"""


def transcript(chat: WebChat) -> str:
    """Return a conversation's page: questions, images, answers and times; without questions that got no answer."""
    turns = "".join(_article(turn) for turn in chat.turns if turn.answer)
    title = html.escape(f"A conversation with {chat.model}")
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{title}</title>"
        f"<meta name='viewport' content='width=device-width'><style>{STYLE}</style><h1>{title}</h1>{turns}</html>"
    )


def _article(turn: Turn) -> str:
    images = "".join(
        f"<p><img src='{jpeg_url(image.png, SHOWN_SIDE)}' alt='image {number}'></p>"
        for number, image in enumerate(turn.images, start=1)
    )
    reports = (value for value in turn.reply.values() if isinstance(value, Mapping))  # the plug-ins'
    lines = [times(turn.reply), *(literal(str(report["summary"])) for report in reports if "summary" in report)]
    about = "".join(f"<p><small>{line}</small></p>" for line in lines if line)
    return (
        f"<article>{images}<div class='question'>{shown_text(turn.question)}</div>{shown_text(turn.answer or '')}"
        f"{about}</article>"
    )
