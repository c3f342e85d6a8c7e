"""Descriptions of a scene in three lengths, and the ways to ask for each."""

from __future__ import annotations

import random

from playground.shapes.scene import CELL, Item, Scene
from playground.smol.things import described, joined, position
from playground.smol.wordings import lines

REQUESTS = {
    "brief": lines("""
        What is in the {pic}?
        What is in this {pic}?
        What's in the {pic}?
        What do you see?
        What do you see in the {pic}?
        What can you see?
        What can you see in the {pic}?
        What does the {pic} show?
        What is this a {pic} of?
        What is shown here?
        Describe the {pic} in one sentence.
        Describe the {pic} briefly.
        Give a short description of the {pic}.
        Write a short caption.
        Summarise the {pic}.
        Caption this {pic}.
    """),
    "list": lines("""
        List everything in the {pic}.
        List all that is in the {pic}.
        List all that you see.
        List what you see.
        List what is in the {pic}.
        List the contents of the {pic}.
        Name everything that you see.
        Name everything in the {pic}.
        Name all that is there.
        Name what is in the {pic}.
        Make a list of what is in the {pic}.
        Make a list of what you see.
    """),
    "detailed": lines("""
        Describe the {pic}.
        Describe this {pic}.
        Describe the {pic} in detail.
        Describe this {pic} in detail.
        Please describe the {pic}.
        Can you describe the {pic}?
        Describe what you see.
        Describe what there is and where it is.
        Give a detailed description of the {pic}.
        Write a detailed caption.
        What is in the {pic}, and where?
        What is where?
        Explain what is where in the {pic}.
        Tell me everything about the {pic}.
        Tell me about this {pic}.
        Say what you see, with sizes and places.
    """),
}


def caption(scene: Scene, length: str) -> str:
    """Describe a scene in reading order; ``length`` is a key of REQUESTS."""
    items = sorted(scene.items, key=lambda i: (i.y // CELL, i.x))
    if length == "brief":
        return f"The picture shows {joined([described(i, size=False) for i in items])}."
    if length == "list":
        return "\n".join(f"- {_capital(described(i))}" for i in items)
    return " ".join(_sentence(i) for i in items)


def caption_request(rng: random.Random) -> tuple[str, str]:
    """Draw a length, and a form to ask for it."""
    length = rng.choice(("brief", "brief", "list", "detailed", "detailed"))
    return length, rng.choice(REQUESTS[length])


def _sentence(item: Item) -> str:
    return f"{_capital(described(item))} is {position(item)}."


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
