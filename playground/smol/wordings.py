"""How people ask: at least 40 forms of every kind of question, some of them for tests alone.

A form has slots, such as ``{x}``, a thing by its name. ``{pic}`` and ``{thing}`` are filled with one of the words for
an image and for a thing. All is written in British spelling; ``spelled`` makes it American.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path

IMAGE_WORDS = ("picture", "image", "drawing", "scene")
THINGS = ("object", "thing", "shape", "item", "figure")

# Around a question that is part of a sentence: "what colour the star is".
FRAMES = (
    "Tell me {}.",
    "Can you tell me {}?",
    "Please tell me {}.",
    "I would like to know {}.",
    "Do you know {}?",
    "Could you say {}?",
    "Say {}.",
    "I wonder {}.",
)
TEST_FRAMES = ("Let me know {}.", "Would you tell me {}?", "I want to know {}.")
# The same for questions that are answered with yes or no.
IF_FRAMES = (
    "Tell me if {}.",
    "Can you tell me whether {}?",
    "Please check if {}.",
    "I would like to know whether {}.",
    "Is it true that {}?",
    "Would you say that {}?",
    "Is it right that {}?",
    "Check whether {}.",
)
TEST_IF_FRAMES = ("Let me know if {}.", "Do you agree that {}?", "I want to know if {}.")


@dataclass(frozen=True)
class Wordings:
    """Forms of one kind of question: ``asked`` are whole, ``embedded`` go into FRAMES, ``claimed`` into IF_FRAMES."""

    asked: tuple[str, ...]
    test: tuple[str, ...]
    embedded: tuple[str, ...] = ()
    claimed: tuple[str, ...] = ()

    @property
    def training_forms(self) -> tuple[str, ...]:
        """Forms that training conversations use."""
        return self.asked + _framed(FRAMES, self.embedded) + _framed(IF_FRAMES, self.claimed)

    @property
    def test_forms(self) -> tuple[str, ...]:
        """Forms that only test questions use."""
        return self.test + _framed(TEST_FRAMES, self.embedded) + _framed(TEST_IF_FRAMES, self.claimed)


def _framed(frames: tuple[str, ...], parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(frame.replace("{}", part) for part in parts for frame in frames)


def lines(text: str) -> tuple[str, ...]:
    """Return a text's lines without the empty ones."""
    return tuple(line.strip() for line in text.strip().splitlines() if line.strip())


def fill(form: str, rng: random.Random, slots: dict[str, str], american: bool) -> str:
    """Fill a form in; the words for an image and, without a slot, a thing are drawn; the first letter is a capital."""
    thing = rng.choice(THINGS)
    text = form.format(**{"pic": rng.choice(IMAGE_WORDS), "thing": thing, "things": f"{thing}s", **slots})
    return spelled(text[0].upper() + text[1:], american)


def spelled(text: str, american: bool) -> str:
    """Return a text in American spelling, or as it is."""
    if not american:
        return text
    return re.sub("olour", "olor", re.sub(r"\b([Cc])entre", r"\1enter", text))


def _read() -> dict[str, Wordings]:
    read = json.loads((Path(__file__).parent / "wordings.json").read_text(encoding="utf-8"))
    found = {kind: Wordings(**{name: tuple(forms) for name, forms in parts.items()}) for kind, parts in read.items()}
    return {**found, "count_two": found["count"]}


WORDINGS = _read()
