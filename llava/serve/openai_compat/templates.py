"""Keeps the prompt template of each model, as the model's worker names it."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import httpx

from llava.conversation import Conversation, conv_templates, template_of_name
from llava.serve.protocol.errors import RequestFailure

log = logging.getLogger(__name__)

TTL_S = 60.0  # how long a template is used before the worker is asked again
RETRY_S = 5.0  # after how long a worker is asked again that did not answer


@dataclass(frozen=True)
class NamedTemplate:
    """A prompt template. ``mode``: the name that the worker gave; "" where the model's config names none; None where
    the worker, upstream's, has no page that would say.
    """

    mode: str | None
    conversation: Conversation


def template_of_reply(reply: httpx.Response, model: str) -> NamedTemplate:
    """Return the template that a worker's ``/ready`` names; without a name, the one of the model's name.

    Raises RequestFailure for a reply that says nothing about it, and as ``named_template`` does.
    """
    if reply.status_code == 404:
        return NamedTemplate(None, template_of_name(model))
    try:
        mode = reply.json()["conv_mode"] or ""
    except (ValueError, KeyError, TypeError) as error:
        raise template_unknown(model, f"its worker answered with status {reply.status_code}") from error
    return named_template(mode, model)


def named_template(mode: str, model: str) -> NamedTemplate:
    """Return the template of a name; of "" the one of the model's name. Raises RequestFailure for an unknown name."""
    if mode and mode not in conv_templates:
        message = f"the worker of model {model!r} names the template {mode!r}, which this server does not know"
        raise RequestFailure(502, "unknown_template", message)
    return NamedTemplate(mode, conv_templates[mode] if mode else template_of_name(model))


def template_unknown(model: str, why: str) -> RequestFailure:
    """Return the failure of a request whose prompt cannot be rendered now."""
    message = f"the prompt template of model {model!r} is not known now: {why}; please ask again"
    return RequestFailure(503, "template_unknown", message, retry_after=1)


@dataclass
class Templates:
    """The templates by model. ``ask``: asks a model's worker; raises RequestFailure.

    While the worker does not answer, the one that it named last stays in use; nothing is assumed in its place.
    """

    ask: Callable[[str], Awaitable[NamedTemplate]]
    _known: dict[str, tuple[float, NamedTemplate]] = field(default_factory=dict)  # model -> (expiry, template)

    async def of(self, model: str) -> NamedTemplate:
        """Return a model's template. Raises RequestFailure where it was never named, or no worker serves the model."""
        expiry, known = self._known.get(model, (0.0, None))
        if known is not None and time.monotonic() < expiry:
            return known
        try:
            named = await self.ask(model)
        except RequestFailure as failure:
            if known is None or failure.reason != "template_unknown":
                raise
            log.warning("%s; the template %r that it named last is used", failure.message, known.mode)
            self._known[model] = (time.monotonic() + RETRY_S, known)
            return known
        if named.mode is None:
            self.forget(model)
        else:
            self._known[model] = (time.monotonic() + TTL_S, named)
        return named

    def forget(self, model: str) -> None:
        """Ask the worker when the template is next needed."""
        self._known.pop(model, None)
