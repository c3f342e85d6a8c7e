"""Draws the requests of a load test: mixed words, images and budgets, the same ones for the same seed."""

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

CLOSED_LOOP, ADAPTIVE = "together", "adaptive"  # the parts of the benchmark, as its flag names them

ABOUT_IMAGES = (
    "Describe the image.",
    "How many objects are there?",
    "What shape is red?",
    "Is there a circle in the image?",
    "What colour is the largest object?",
    "How many squares are there?",
)
WITHOUT_IMAGE = ("Who are you?", "Name a colour.", "What is a triangle?")
TEXT_SHARE = 0.25  # of the requests have no image


@dataclass(frozen=True)
class LoadRequest:
    """One request.

    image: base64 of a PNG. budget: None for the server's default. earlier: questions asked before in the same chat,
    each answered with ``yes``.
    """

    words: str
    image: str | None
    budget: float | None
    earlier: tuple[str, ...] = ()

    def body(self, model: str, template: Conversation, max_new_tokens: int) -> dict[str, Any]:
        """Return the request to the worker, with greedy sampling."""
        conversation = template.copy()
        tag = f"{DEFAULT_IMAGE_TOKEN}\n" if self.image else ""
        questions = (*self.earlier, self.words)
        for number, question in enumerate(questions, start=1):
            conversation.append_message(conversation.roles[0], tag + question)
            conversation.append_message(conversation.roles[1], "yes" if number < len(questions) else None)
            tag = ""
        fields = {
            "model": model,
            "prompt": conversation.get_prompt(),
            "images": [self.image] if self.image else [],
            "temperature": 0,
            "max_new_tokens": max_new_tokens,
            "stop": stop_text(conversation),
        }
        return fields if self.budget is None else {**fields, "latency_budget": self.budget}


def image_variants(image: Image.Image) -> list[str]:
    """Return eight images made of one, mirrored and rotated, as base64 of PNGs."""
    rotated = [
        side.rotate(angle, expand=True) for side in (image, ImageOps.mirror(image)) for angle in (0, 90, 180, 270)
    ]
    return [_base64(variant) for variant in rotated]


def _base64(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def mixed(
    count: int, images: Sequence[str], budgets: Sequence[float | None], seed: int = 0, turns: int = 1
) -> list[LoadRequest]:
    """Draw ``count`` independent requests, each the last of ``turns`` questions of a chat."""
    rng = random.Random(seed)
    requests = []
    for _ in range(count):
        image = None if rng.random() < TEXT_SHARE else rng.choice(images)
        asked = [rng.choice(WITHOUT_IMAGE if image is None else ABOUT_IMAGES) for _ in range(turns)]
        requests.append(LoadRequest(asked[-1], image, rng.choice(budgets), tuple(asked[:-1])))
    return requests


def arrivals(count: int, per_second: float, seed: int = 0) -> list[float]:
    """Draw the times in seconds at which independent clients come, on average ``per_second`` of them."""
    rng, now, times = random.Random(seed), 0.0, []
    for _ in range(count):
        now += rng.expovariate(per_second)
        times.append(now)
    return times
