"""A worker's objects -> a chat completion, whole or in server-sent events."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from llava.serve.openai_compat.errors import error_body
from llava.serve.openai_compat.schemas import AssistantMessage, Choice, Completion, Usage
from llava.serve.protocol.errors import RequestFailure
from llava.serve.protocol.schemas import WORKER_UNREACHABLE

log = logging.getLogger(__name__)

Objects = AsyncIterator[dict[str, Any]]
OWN = ("text", "error_code", "finish_reason", "usage")  # what the completion has fields for; the rest is the figures
DONE = b"data: [DONE]\n\n"


@dataclass
class ChatAnswer:
    """One answer on its way. ``prompt``: what every object's text begins with."""

    request_id: str
    model: str
    prompt: str
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def id(self) -> str:
        """OpenAI's form of the request's id."""
        return f"chatcmpl-{self.request_id}"

    def text(self, said: dict[str, Any]) -> str:
        """The answer so far, without the space around it."""
        return str(said["text"])[len(self.prompt) :].strip()

    async def whole(self, objects: Objects) -> Completion:
        """The completion, once all is there."""
        last = None
        async for said in objects:
            last = said
        last = _finished(last)
        message = AssistantMessage(content=self.text(last))
        return Completion(
            id=self.id,
            created=self.created,
            model=self.model,
            choices=[Choice(message=message, finish_reason=last["finish_reason"])],
            usage=Usage(**last["usage"]),
            llava=_figures(last),
        )

    async def events(self, objects: Objects, include_usage: bool) -> AsyncIterator[bytes]:
        """Server-sent events: the role, pieces of text, the end with the figures; what fails is an event, too."""
        usage: dict[str, Any] = {"usage": None} if include_usage else {}
        try:
            yield self._event({"role": "assistant", "content": ""}, **usage)
            shown, last = "", None
            async for last in objects:
                text = self.text(last)
                if len(text) > len(shown):
                    yield self._event({"content": text[len(shown) :]}, **usage)
                    shown = text
            last = _finished(last)
            yield self._event({}, last["finish_reason"], **usage, llava=_figures(last))
            if include_usage:
                yield _sent({**self._head(), "choices": [], "usage": last["usage"]})
        except RequestFailure as failure:
            log.warning("request %s: %d %s", self.request_id, failure.status, failure.message)
            yield _sent(error_body(failure))
        yield DONE

    def _head(self) -> dict[str, Any]:
        return {"id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model}

    def _event(self, delta: dict[str, Any], finish_reason: str | None = None, **fields: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _sent({**self._head(), "choices": [choice], **fields})


def _finished(last: dict[str, Any] | None) -> dict[str, Any]:
    if last is None or "finish_reason" not in last or "usage" not in last:
        message = "the worker's answer ended without its figures; is it a worker of this project?"
        raise RequestFailure(502, "worker_lost", message, WORKER_UNREACHABLE)
    return last


def _figures(last: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in last.items() if name not in OWN}


def _sent(event: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(event, allow_nan=False).encode() + b"\n\n"
