"""Renders a chat's messages as the prompt that the model was trained on, and collects the URLs of its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import Conversation, SeparatorStyle, stop_text
from llava.errors import OptionError
from llava.serve.openai_compat.schemas import ImagePart, Message, RefusalPart, TextPart
from llava.serve.turns import Turn, joined_turns, render_turns, without_image_tags

SYSTEM = ("system", "developer")
ASSISTANT = "assistant"
TOOLS = ("tool", "function")


@dataclass(frozen=True)
class ChatPrompt:
    """A rendered chat. ``image_urls``: one for each image tag of ``prompt``, in order. ``stop``: text that ends it."""

    prompt: str
    image_urls: tuple[str, ...]
    stop: str | None


def render_prompt(messages: Sequence[Message], template: Conversation) -> ChatPrompt:
    """Render a chat by a template.

    System messages replace the template's own; messages of the system or the assistant without text are left out;
    consecutive messages of one role become one turn; a turn's images come before its text, as in training. Where the
    last turn is the assistant's, the prompt ends with its text, so that the answer continues it. Raises OptionError,
    naming the message, for a chat without a user, an empty message of the user, an image that is not the user's, an
    image tag in the user's or the system's text, a tool.
    """
    system: list[str] = []
    turns: list[Turn] = []
    image_urls: list[str] = []
    for index, message in enumerate(messages):
        text, urls = _parse(message, f"messages.{index}")
        if message.role in SYSTEM:
            system += [text] if text.strip() else []
            continue
        image_urls += urls
        turns.append(Turn(message.role == ASSISTANT, f"{DEFAULT_IMAGE_TOKEN}\n" * len(urls) + text))
    turns = joined_turns(turns)
    _check_roles(turns, template)
    if system:
        template = replace(template, system=_system_text(template, "\n".join(system)))
    return ChatPrompt(render_turns(template, turns), tuple(image_urls), stop_text(template))


def _check_roles(turns: Sequence[Turn], template: Conversation) -> None:
    """Raise OptionError for a chat without a user's message, or one that begins as the template cannot."""
    if all(turn.is_answer for turn in turns):
        raise OptionError("messages: the chat has no message of the role 'user'; expected one or more")
    if turns[0].is_answer and template.sep_style is SeparatorStyle.LLAMA_2:
        raise OptionError(
            "messages: the chat begins with the assistant, which this model's template cannot express; begin with a "
            "message of the role 'user', or put the text into one of the role 'system'"
        )


def _parse(message: Message, name: str) -> tuple[str, list[str]]:
    """Return the text of a message and the URLs of its images. ``name``: of the message, for errors."""
    if message.role in TOOLS or message.tool_calls or message.function_call:
        raise OptionError(
            f"{name}: it is about a tool (role {message.role!r}), but this server calls none; leave such messages out, "
            "or give their text in a message of the role 'user'"
        )
    text, urls = _text(message), _urls(message)
    if urls and message.role != "user":
        raise OptionError(f"{name}: an image in a message of the role {message.role!r}; expected it in the user's")
    if message.role == "user" and not text.strip() and not urls:
        raise OptionError(f"{name}: the message is empty; expected text or an image")
    if DEFAULT_IMAGE_TOKEN in text:
        raise OptionError(
            f"{name}: the text holds {DEFAULT_IMAGE_TOKEN!r}, which stands for an image in the model's prompt; leave "
            "it out, and send images as parts of the type 'image_url'"
        )
    return text, urls


def _urls(message: Message) -> list[str]:
    parts = message.content if isinstance(message.content, list) else []
    return [part.image_url.url for part in parts if isinstance(part, ImagePart)]


def _text(message: Message) -> str:
    """Return a message's text; an assistant's is what it refused with where there is no other.

    A model may write an image tag, and clients send back what it wrote: in an assistant's text it is left out.
    """
    parts = message.content if isinstance(message.content, list) else []
    texts = [message.content] if isinstance(message.content, str) else []
    texts += [part.text for part in parts if isinstance(part, TextPart)]
    texts += [part.refusal for part in parts if isinstance(part, RefusalPart)]
    text = "\n".join(texts)
    if message.role != ASSISTANT:
        return text
    return without_image_tags(text if text.strip() else message.refusal or "")


def _system_text(template: Conversation, text: str) -> str:
    """Return a system message in the form that the template gives its own."""
    if template.sep_style in (SeparatorStyle.MPT, SeparatorStyle.CHATML):
        head, _, _ = template.system.partition("\n")
        return f"{head}\n{text}"
    return text
