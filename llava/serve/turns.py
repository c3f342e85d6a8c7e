"""Renders the turns of a chat as the prompt of a request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import Conversation


@dataclass(frozen=True)
class Turn:
    """What one side says in the prompt."""

    is_answer: bool
    text: str


def joined_turns(turns: Iterable[Turn]) -> list[Turn]:
    """Return turns in which the sides alternate: neighbours of one side are joined, answers without text left out."""
    joined: list[Turn] = []
    for turn in turns:
        if turn.is_answer and not turn.text.strip():
            continue
        if joined and joined[-1].is_answer == turn.is_answer:
            turn = Turn(turn.is_answer, f"{joined.pop().text}\n{turn.text}")
        joined.append(turn)
    return joined


def render_turns(template: Conversation, turns: Sequence[Turn]) -> str:
    """Return the turns as text that ends where the model is to go on: within the last turn if it is an answer."""
    conversation = template.copy()
    begun = turns[-1].text.rstrip() if turns[-1].is_answer else None
    for turn in turns if begun is None else turns[:-1]:
        conversation.append_message(conversation.roles[turn.is_answer], turn.text)
    conversation.append_message(conversation.roles[1], None)
    prompt = conversation.get_prompt()
    if begun is None:
        return prompt
    conversation.messages[-1][1] = begun
    rest = conversation.get_prompt()[len(prompt) :]  # the text between the template's spaces and separators
    return prompt + rest[: rest.index(begun) + len(begun)]


def without_image_tags(answer: str) -> str:
    """Return an answer without the image tags that the model wrote: in a prompt they would stand for images."""
    while DEFAULT_IMAGE_TOKEN in answer:
        answer = answer.replace(DEFAULT_IMAGE_TOKEN, "")
    return answer
