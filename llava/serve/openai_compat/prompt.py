"""A chat's messages -> the prompt that the model was trained on, and the addresses of its pictures."""

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
    """``pictures``: addresses, one for each image tag of the prompt, in order. ``stop``: what ends the answer."""

    prompt: str
    pictures: tuple[str, ...]
    stop: str | None


def render_prompt(messages: Sequence[Message], template: Conversation) -> ChatPrompt:
    """Word a chat by a template.

    System messages take the place of the template's own; messages of one role in a row become one turn; a turn's
    pictures stand in front of its words, as in training. Raises OptionError, naming the message, for a chat that does
    not begin and end with the user's, an empty message, a picture that is not the user's, an image tag in a text.
    """
    system: list[str] = []
    turns: list[list[str]] = []
    pictures: list[str] = []
    for place, message in enumerate(messages):
        text, shown = _read(message, place)
        if message.role in SYSTEM:
            system.append(text)
            continue
        pictures += shown
        role = template.roles[message.role == "assistant"]
        said = f"{DEFAULT_IMAGE_TOKEN}\n" * len(shown) + text
        if turns and turns[-1][0] == role:
            turns[-1][1] += f"\n{said}"
        else:
            turns.append([role, said])
    if not turns or turns[0][0] != template.roles[0] or turns[-1][0] != template.roles[0]:
        raise OptionError("messages: expected a chat that begins and ends with a message of the role 'user'")
    conversation = template.copy()
    if system:
        conversation.system = _system_text(template, "\n".join(system))
    for role, said in turns:
        conversation.append_message(role, said)
    conversation.append_message(conversation.roles[1], None)
    return ChatPrompt(conversation.get_prompt(), tuple(pictures), stop_text(conversation))


def _read(message: Message, place: int) -> tuple[str, list[str]]:
    """A message's words and the addresses of its pictures."""
    parts = [message.content] if isinstance(message.content, str) else message.content
    shown = [part.image_url.url for part in parts if isinstance(part, ImagePart)]
    words = [part if isinstance(part, str) else part.text for part in parts if not isinstance(part, ImagePart)]
    text = "\n".join(words)
    name = f"messages.{place}"
    if shown and message.role != "user":
        raise OptionError(f"{name}: a picture in a message of the role {message.role!r}; expected it in the user's")
    if not text.strip() and not shown:
        raise OptionError(f"{name}: the message is empty; expected words or a picture")
    if DEFAULT_IMAGE_TOKEN in text:
        raise OptionError(
            f"{name}: the text holds {DEFAULT_IMAGE_TOKEN!r}, which stands for a picture in the model's prompt; leave "
            "it out, and send pictures as parts of the type 'image_url'"
        )
    return text, shown


def _system_text(template: Conversation, text: str) -> str:
    """The words of a system message as the template frames its own."""
    if template.sep_style is SeparatorStyle.MPT:
        head, _, _ = template.system.partition("\n")
        return f"{head}\n{text}"
    return text
