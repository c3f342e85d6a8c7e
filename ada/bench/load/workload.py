"""What a load test asks: mixed words, pictures and budgets, the same for the same seed."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageOps

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import Conversation, stop_text

ABOUT_PICTURES = (
    "Describe the image.",
    "How many objects are there?",
    "What shape is red?",
    "Is there a circle in the image?",
    "What colour is the largest object?",
    "How many squares are there?",
)
WITHOUT_PICTURES = ("Who are you?", "Name a colour.", "What is a triangle?")
TEXT_SHARE = 0.25  # of the requests have no picture


@dataclass(frozen=True)
class LoadRequest:
    """``picture``: base64 of a PNG. ``budget`` None: what the server does without one. ``earlier``: questions of the
    same chat that were asked before, each answered with ``yes``."""

    words: str
    picture: str | None
    budget: float | None
    earlier: tuple[str, ...] = ()

    def body(self, model: str, template: Conversation, max_new_tokens: int) -> dict[str, Any]:
        """The worker's request, greedy."""
        conversation = template.copy()
        tag = f"{DEFAULT_IMAGE_TOKEN}\n" if self.picture else ""
        questions = (*self.earlier, self.words)
        for number, question in enumerate(questions, start=1):
            conversation.append_message(conversation.roles[0], tag + question)
            conversation.append_message(conversation.roles[1], "yes" if number < len(questions) else None)
            tag = ""
        fields = {
            "model": model,
            "prompt": conversation.get_prompt(),
            "images": [self.picture] if self.picture else [],
            "temperature": 0,
            "max_new_tokens": max_new_tokens,
            "stop": stop_text(conversation),
        }
        return fields if self.budget is None else {**fields, "latency_budget": self.budget}


def pictures_of(image: Image.Image) -> list[str]:
    """Eight pictures out of one, mirrored and turned, as base64 of PNGs."""
    turned = [
        side.rotate(angle, expand=True) for side in (image, ImageOps.mirror(image)) for angle in (0, 90, 180, 270)
    ]
    return [_base64(picture) for picture in turned]


def _base64(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def mixed(
    count: int, pictures: Sequence[str], budgets: Sequence[float | None], seed: int = 0, turns: int = 1
) -> list[LoadRequest]:
    """``count`` requests, drawn independently, each the last of ``turns`` questions of a chat."""
    rng = random.Random(seed)
    requests = []
    for _ in range(count):
        picture = None if rng.random() < TEXT_SHARE else rng.choice(pictures)
        asked = [rng.choice(WITHOUT_PICTURES if picture is None else ABOUT_PICTURES) for _ in range(turns)]
        requests.append(LoadRequest(asked[-1], picture, rng.choice(budgets), tuple(asked[:-1])))
    return requests


def arrivals(count: int, per_second: float, seed: int = 0) -> list[float]:
    """Seconds at which independent clients would come, on average ``per_second`` of them."""
    rng, now, times = random.Random(seed), 0.0, []
    for _ in range(count):
        now += rng.expovariate(per_second)
        times.append(now)
    return times
