"""Draws the requests of a hostile load: their kinds, images and order, the same ones for the same seed."""

from __future__ import annotations

import base64
import functools
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

TEXT, SMALL_IMAGE = "text", "small image"
SMALL = (TEXT, SMALL_IMAGE)
SIZES = {  # width, height of the images of each kind, in pixels
    SMALL_IMAGE: (96, 96),
    "medium image": (1600, 1200),
    "large image": (4000, 3000),
    "thin image": (1, 16000),
    "wide image": (20000, 1),
}
CANCELLED, LATE_HEAD, SLOW_HEAD, LATE_BODY, NO_CHAT, NOT_JSON = (
    "cancelled",
    "late head",
    "slow head",
    "late body",
    "no chat",
    "not JSON",
)
# Kinds of the hostile clients, with their shares; those that leave have a share of all requests instead.
SHARES = {
    "medium image": 4,
    "large image": 3,
    "thin image": 2,
    "wide image": 1,
    LATE_HEAD: 1,
    SLOW_HEAD: 2,
    LATE_BODY: 1,
    NO_CHAT: 2,
    NOT_JSON: 1,
}
QUESTIONS = ("What shape is red?", "How many objects are there?", "Describe the image.", "What is a circle?")


@dataclass(frozen=True)
class HostileRequest:
    """One request. image: kind of its image, None for text. stream: as server-sent events."""

    kind: str
    question: str
    image: str | None = None
    stream: bool = False
    leave_after_s: float = field(default=0.0, compare=False)

    @property
    def is_small(self) -> bool:
        """Whether it is one of those whose time is measured."""
        return self.kind in SMALL

    def body(self, model: str, max_new_tokens: int) -> dict[str, Any]:
        """Return the chat, with greedy sampling."""
        content: list[dict[str, Any]] = [{"type": "text", "text": self.question}]
        if self.image is not None:
            content.append({"type": "image_url", "image_url": {"url": image_url(self.image)}})
        fields = {"temperature": 0, "max_tokens": max_new_tokens, "stream": self.stream}
        return {"model": model, "messages": [{"role": "user", "content": content}], **fields}


@functools.cache
def image_url(kind: str) -> str:
    """Return an image of a kind as a data URL: soft noise, so that large ones are large files."""
    width, height = SIZES[kind]
    rng = np.random.default_rng(width)
    coarse = rng.integers(0, 256, (max(1, height // 8), max(1, width // 8), 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((width, height)).save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def draw_small(count: int, seed: int) -> list[HostileRequest]:
    """Draw ``count`` small requests: a question alone or with a small image, half of them streamed."""
    rng = random.Random(seed)
    requests = []
    for _ in range(count):
        kind = rng.choice(SMALL)
        image = SMALL_IMAGE if kind == SMALL_IMAGE else None
        requests.append(HostileRequest(kind, rng.choice(QUESTIONS), image, rng.random() < 0.5))
    return requests


def draw_hostile(count: int, cancelled: int, seed: int) -> list[HostileRequest]:
    """Draw ``count`` requests of the other kinds, ``cancelled`` of which are left by their clients."""
    rng = random.Random(seed)
    kinds = rng.choices(list(SHARES), list(SHARES.values()), k=count - cancelled)
    requests = [HostileRequest(kind, rng.choice(QUESTIONS), kind if kind in SIZES else None) for kind in kinds]
    images: Sequence[str | None] = (None, SMALL_IMAGE, "medium image", "large image")
    for _ in range(cancelled):
        left = HostileRequest(CANCELLED, rng.choice(QUESTIONS), rng.choice(images), True, rng.random() * 0.5)
        requests.append(left)
    rng.shuffle(requests)
    return requests
