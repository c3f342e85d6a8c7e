"""Shows a conversation: its messages, a line about the answer that is being given, and what may be clicked now."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import gradio as gr

from llava.serve.web.conversation_state import STOPPED, Turn, WebChat
from llava.serve.web.markup import literal, shown_text
from llava.serve.web.uploaded_image import UploadedImage

RETRY, CHANGE = "retry", "change"
TYPING = "<div class='typing'>…</div>"
EMPTY_ANSWER = "<div class='failure'>The model answered nothing.</div>"
Message = dict[str, Any]


def messages(chat: WebChat) -> list[Message]:
    """Return the conversation in the form of ``gr.Chatbot``; the last turn can be tried again where it failed."""
    shown = [message for turn in chat.turns for message in _messages_of(turn)]
    last = chat.turns[-1] if chat.turns else None
    if last is not None and last.failure is not None:
        options = [{"value": RETRY, "label": "Retry"}]
        if not last.answer:
            options.append({"value": CHANGE, "label": "Change the question"})
        shown[-1]["options"] = options
    return shown


def _messages_of(turn: Turn) -> list[Message]:
    asked = (shown_images(turn.images), shown_text(turn.question))
    shown: list[Message] = [{"role": "user", "content": part} for part in asked if part]
    if turn.answer:
        shown.append({"role": "assistant", "content": shown_text(turn.answer)})
    if turn.failure is not None:
        shown.append({"role": "assistant", "content": _failure(turn)})
    elif turn.answer is None:
        shown.append({"role": "assistant", "content": TYPING})
    elif not turn.answer:
        shown.append({"role": "assistant", "content": EMPTY_ANSWER})
    return shown


def _failure(turn: Turn) -> str:
    """Return what a failed turn shows; a visitor who has stopped it knows why."""
    why = literal(_sentence(str(turn.failure)))
    if turn.failure == STOPPED:
        return f"<div class='failure'>{why}</div>"
    title = "The answer is not complete." if turn.answer else "There is no answer."
    return f"<div class='failure'><strong>{title}</strong> {why}</div>"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "." * (text[-1:] not in ".!?")


def shown_images(images: tuple[UploadedImage, ...]) -> str:
    """Return a question's images as one line of HTML; "" where it has none."""
    shown = [f"<img src='{image.url}' alt='image {number}'>" for number, image in enumerate(images, start=1)]
    return f"<div class='asked-images'>{''.join(shown)}</div>" if shown else ""


def status(chat: WebChat) -> str:
    """Return HTML about what happens now, or what has: a hint, the request's position, the time to the first token."""
    if chat.hint:
        return f"<p class='hint' role='alert'>{literal(chat.hint)}</p>"
    if chat.live is not None:
        notes = chat.live.notes
        return f"<p>{progress(notes)}{'' if 'time_to_first_token_ms' in notes else clock(chat.live.asked)}</p>"
    if chat.is_pending:
        return "<p>Sent; waiting for its turn on this page</p>"
    reply = chat.turns[-1].reply if chat.turns else {}
    return f"<p>{times(reply)}</p>" if reply else ""


def progress(notes: Mapping[str, Any]) -> str:
    """Return what a running answer's chunks have said, in words."""
    if "time_to_first_token_ms" in notes:
        return f"First token after <strong>{notes['time_to_first_token_ms']:.0f} ms</strong>; writing"
    position = notes.get("queue_position")
    if position is None:
        return "Sent"
    return f"Number {position} in the queue" if position else "Reading the question"


def clock(asked: float) -> str:
    """Return a clock that runs in the browser, from when the question was asked (``time.perf_counter``)."""
    return f" <span class='clock' aria-hidden='true' data-ms='{1000 * (time.perf_counter() - asked):.0f}'></span>"


def times(reply: Mapping[str, Any]) -> str:
    """Return a complete answer's times, in words; and what was done to its images."""
    if "time_to_first_token_ms" not in reply:  # an upstream worker's
        return ""
    token_ms = reply["token_ms"]
    each = f", {sum(token_ms) / len(token_ms):.1f} ms each" if token_ms else ""
    waited = f" ({reply['queue_ms']:.0f} ms of it before the model began)" if reply["queue_ms"] >= 1 else ""
    count = reply["usage"]["completion_tokens"]
    parts = [
        f"First token after <strong>{reply['time_to_first_token_ms']:.0f} ms</strong>{waited}",
        f"{count} token{'s' * (count != 1)}{each}",
        f"{reply['total_ms']:.0f} ms in all",
        *map(literal, reply.get("image_notes", ())),
    ]
    return " · ".join(parts)


def can(chat: WebChat) -> dict[str, Any]:
    """Return updates of the buttons, by name: what may be done with the conversation now."""
    busy, last = chat.live is not None or chat.is_pending, chat.turns[-1] if chat.turns else None
    answered = not busy and last is not None and bool(last.answer) and last.failure is None
    may = {
        "stop": busy,
        "retry": not busy and last is not None,
        "clear": last is not None,
        "vote": answered and last is not None and last.vote is None,
        "share": not busy and any(turn.answer for turn in chat.turns),
    }
    return {name: gr.update(interactive=allowed) for name, allowed in may.items()}
