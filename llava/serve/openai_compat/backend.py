"""What the OpenAI-style API asks models of: a controller over HTTP, or what a plug-in has in its stead."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol, TypeVar

from llava.serve.openai_compat.templates import Templates


class OpenReply(Protocol):
    """A reply that has begun, or is about to."""

    async def aclose(self) -> None:
        """Release it, whether it was read to its end or not."""


Reply = TypeVar("Reply", bound=OpenReply)


class Backend(Protocol[Reply]):
    """Gives the API models, their prompt templates, and answers. Every method but ``close`` raises RequestFailure."""

    templates: Templates

    async def models(self) -> list[str]:
        """Return the names of all models that can be asked."""

    async def open(self, body: dict[str, Any], request_id: str) -> Reply:
        """Ask for an answer, by the fields of a ``GenerationBody``; return it as it begins. The caller closes it."""

    def chunks(self, reply: Reply) -> AsyncIterator[dict[str, Any]]:
        """Yield the chunks of an answer; raise the failure that one of them reports."""

    async def close(self) -> None:
        """Release what is held, once the API ends."""
