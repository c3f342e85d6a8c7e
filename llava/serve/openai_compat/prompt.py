"""Renders a chat's messages as the prompt that the model was trained on, and collects the URLs of its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import Conversation, SeparatorStyle, stop_text
from llava.errors import OptionError
from llava.serve.openai_compat.schemas import ImagePart, Message

SYSTEM = ("system", "developer")


@dataclass(frozen=True)
class ChatPrompt:
    """A rendered chat. ``image_urls``: one for each image tag of ``prompt``, in order. ``stop``: text that ends it."""

    prompt: str
    image_urls: tuple[str, ...]
    stop: str | None


def render_prompt(messages: Sequence[Message], template: Conversation) -> ChatPrompt:
    """Render a chat by a template.

    System messages replace the template's own; consecutive messages of one role become one turn; a turn's images come
    before its text, as in training. Raises OptionError, naming the message, for a chat that does not begin and end with
    the user, an empty message, an image that is not the user's, an image tag in a text.
    """
    system: list[str] = []
    turns: list[list[str]] = []  # role and text
    image_urls: list[str] = []
    for index, message in enumerate(messages):
        text, urls = _parse(message, index)
        if message.role in SYSTEM:
            system.append(text)
            continue
        image_urls += urls
        role = template.roles[message.role == "assistant"]
        content = f"{DEFAULT_IMAGE_TOKEN}\n" * len(urls) + text
        if turns and turns[-1][0] == role:
            turns[-1][1] += f"\n{content}"
        else:
            turns.append([role, content])
    if not turns or turns[0][0] != template.roles[0] or turns[-1][0] != template.roles[0]:
        raise OptionError("messages: expected a chat that begins and ends with a message of the role 'user'")
    conversation = template.copy()
    if system:
        conversation.system = _system_text(template, "\n".join(system))
    for role, content in turns:
        conversation.append_message(role, content)
    conversation.append_message(conversation.roles[1], None)
    return ChatPrompt(conversation.get_prompt(), tuple(image_urls), stop_text(conversation))


def _parse(message: Message, index: int) -> tuple[str, list[str]]:
    """Return the text of a message and the URLs of its images."""
    parts = [message.content] if isinstance(message.content, str) else message.content
    urls = [part.image_url.url for part in parts if isinstance(part, ImagePart)]
    texts = [part if isinstance(part, str) else part.text for part in parts if not isinstance(part, ImagePart)]
    text = "\n".join(texts)
    name = f"messages.{index}"
    if urls and message.role != "user":
        raise OptionError(f"{name}: an image in a message of the role {message.role!r}; expected it in the user's")
    if not text.strip() and not urls:
        raise OptionError(f"{name}: the message is empty; expected text or an image")
    if DEFAULT_IMAGE_TOKEN in text:
        raise OptionError(
            f"{name}: the text holds {DEFAULT_IMAGE_TOKEN!r}, which stands for an image in the model's prompt; leave "
            "it out, and send images as parts of the type 'image_url'"
        )
    return text, urls


def _system_text(template: Conversation, text: str) -> str:
    """Return a system message in the form that the template gives its own."""
    if template.sep_style in (SeparatorStyle.MPT, SeparatorStyle.CHATML):
        head, _, _ = template.system.partition("\n")
        return f"{head}\n{text}"
    return text
