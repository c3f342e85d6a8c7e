"""Asks an OpenAI-style server, each question at its time, and records when its answer had come."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from PIL import Image

from ada.eval.questions.question_set import Item

TIMEOUT_S = 120.0
MANY = 10**6  # requests: no limit
UNAVAILABLE = 503  # HTTP's status of a server that takes no more


def refuses(status: int) -> bool:
    """Return whether a reply's status says that the server will not answer; others are failures of an answer."""
    return 400 <= status < 500 or status == UNAVAILABLE


@dataclass(frozen=True)
class Outcome:
    """What became of one request. total_s: from when it was due to be sent to the end of its answer.

    right: whether the answer is, however late; failure: a refusal or a loss, None where an answer came.
    """

    total_s: float
    right: bool
    failure: str | None = None
    status: int = 200


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-style API. url: up to ``/v1``; model: the name that requests have."""

    url: str
    model: str
    api_key: str = "none"

    def body(self, item: Item, fields: Mapping[str, Any], max_tokens: int) -> dict[str, Any]:
        """Return the request of a question, greedy."""
        parts: list[dict[str, Any]] = [{"type": "text", "text": item.question.text}]
        if item.question.open_image is not None:
            url = f"data:image/png;base64,{_png(item.question.open_image())}"
            parts.insert(0, {"type": "image_url", "image_url": {"url": url}})
        messages = [{"role": "user", "content": parts}]
        return {"model": self.model, "messages": messages, "temperature": 0, "max_tokens": max_tokens, **fields}


def _png(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "png")
    return base64.b64encode(stream.getvalue()).decode()


async def ask_at_times(
    endpoint: Endpoint,
    items: Sequence[Item],
    bodies: Sequence[dict[str, Any]],
    times: Sequence[float],
    at_once: int = MANY,
) -> list[Outcome]:
    """Send each question at its time in seconds, whether the ones before it were answered or not.

    A request that is sent late is counted from when it was due, as its user waits from then on: one that the machine
    was too slow for, and one that waits here, where no more than ``at_once`` are sent at the same time.
    """
    start = time.perf_counter()
    headers = {"Authorization": f"Bearer {endpoint.api_key}"}
    limits, free = httpx.Limits(max_connections=None), asyncio.Semaphore(at_once)

    async def ask(client: httpx.AsyncClient, item: Item, content: bytes, at: float) -> Outcome:
        await asyncio.sleep(max(0.0, start + at - time.perf_counter()))
        try:
            async with free:
                reply = await client.post("/chat/completions", content=content)
            total_s = time.perf_counter() - start - at
            if reply.status_code != 200:
                return Outcome(total_s, False, reply.text[:300], reply.status_code)
            text = reply.json()["choices"][0]["message"]["content"]
        except (httpx.HTTPError, ValueError, KeyError, IndexError) as error:
            return Outcome(time.perf_counter() - start - at, False, f"{type(error).__name__}: {error}", 0)
        return Outcome(total_s, item.is_right(text))

    contents = [json.dumps(body).encode() for body in bodies]
    headers["Content-Type"] = "application/json"
    async with httpx.AsyncClient(
        base_url=endpoint.url, headers=headers, limits=limits, timeout=TIMEOUT_S, trust_env=False
    ) as client:
        asked = zip(items, contents, times, strict=True)
        return await asyncio.gather(*(ask(client, item, content, at) for item, content, at in asked))
