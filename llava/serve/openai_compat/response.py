"""Translates a worker's chunks into a chat completion, as one reply or as server-sent events."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, get_args

from pydantic import ValidationError

from llava.serve.middleware.request_end import current_end
from llava.serve.openai_compat.errors import error_body
from llava.serve.openai_compat.schemas import AssistantMessage, Choice, Completion, FinishReason, Usage
from llava.serve.protocol.errors import RequestFailure
from llava.serve.protocol.schemas import WORKER_UNREACHABLE

Chunks = AsyncIterator[dict[str, Any]]
COMPLETION_FIELDS = ("text", "error_code", "finish_reason", "usage")  # all others go into the field ``llava``
DONE = b"data: [DONE]\n\n"


@dataclass
class ChatAnswer:
    """One answer while it is generated. ``prompt``: what the text of every chunk begins with."""

    request_id: str
    model: str
    prompt: str
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def id(self) -> str:
        """The request's id in OpenAI's form."""
        return f"chatcmpl-{self.request_id}"

    def text(self, chunk: dict[str, Any]) -> str:
        """Return the answer so far, without the space around it, nor what UTF-8 cannot encode."""
        return str(chunk["text"])[len(self.prompt) :].strip().encode(errors="replace").decode()

    async def completion(self, chunks: Chunks) -> Completion:
        """Read all chunks; return the completion. Raises RequestFailure where they have no proper end."""
        last = None
        async for chunk in chunks:
            last = chunk
        last = _check_finished(last)
        message = AssistantMessage(content=self.text(last))
        return Completion(
            id=self.id,
            created=self.created,
            model=self.model,
            choices=[Choice(message=message, **_ending(last))],
            usage=Usage(**last["usage"]),
            llava=_metadata(last),
        )

    async def events(self, chunks: Chunks, include_usage: bool) -> AsyncIterator[bytes]:
        """Yield server-sent events: the role, pieces of text, the end with the metadata; a failure is an event, too."""
        usage: dict[str, Any] = {"usage": None} if include_usage else {}
        try:
            yield self._event({"role": "assistant", "content": ""}, **usage)
            sent, last = "", None
            async for last in chunks:
                text = self.text(last)
                if len(text) > len(sent):
                    yield self._event({"content": text[len(sent) :]}, **usage)
                    sent = text
            last = _check_finished(last)
            yield self._event({}, _ending(last), **usage, llava=_metadata(last))
            if include_usage:
                yield _encode({**self._head(), "choices": [], "usage": last["usage"]})
        except RequestFailure as failure:
            current_end().fail(failure)
            yield _encode(error_body(failure))
        yield DONE

    def _head(self) -> dict[str, Any]:
        return {"id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model}

    def _event(self, delta: dict[str, Any], ending: dict[str, Any] | None = None, **fields: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, **(ending or {"finish_reason": None})}
        return _encode({**self._head(), "choices": [choice], **fields})


def _check_finished(last: dict[str, Any] | None) -> dict[str, Any]:
    """Return the last chunk. Raises RequestFailure where it is not the end of an answer."""
    try:
        if last is None or not isinstance(last["finish_reason"], str):
            raise KeyError("finish_reason")
        Usage.model_validate(last["usage"])
    except (KeyError, ValidationError) as error:
        message = "the worker's answer ended without its finish_reason and usage; is it a worker of this project?"
        raise RequestFailure(502, "worker_lost", message, WORKER_UNREACHABLE) from error
    return last


def _ending(last: dict[str, Any]) -> dict[str, Any]:
    """Return the choice's fields of why the answer ended.

    OpenAI's names are few: what a plug-in ended an answer for is "length", and named by vLLM's ``stop_reason``.
    """
    reason = last["finish_reason"]
    if reason in get_args(FinishReason):
        return {"finish_reason": reason}
    return {"finish_reason": "length", "stop_reason": reason}


def _metadata(last: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in last.items() if name not in COMPLETION_FIELDS}


def last_events(failure: RequestFailure, request_id: str | None) -> bytes:
    """Return the events that end a stream whose answer the server has stopped."""
    return _encode(error_body(failure)) + DONE


def _encode(event: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(event, allow_nan=False).encode() + b"\n\n"
