"""A request for a chat completion -> a worker's request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llava.plugins import hooks, merged
from llava.serve.openai_compat.controller_client import ControllerClient
from llava.serve.openai_compat.image_urls import ImageAddresses
from llava.serve.openai_compat.prompt import render_prompt
from llava.serve.openai_compat.schemas import UNSUPPORTED, ChatBody
from llava.serve.protocol.errors import RequestFailure

NO_TOKEN_LIMIT = 1_000_000  # tokens; the worker cuts to its own limit


async def generation_body(
    body: ChatBody, headers: Mapping[str, str], controller: ControllerClient, images: ImageAddresses
) -> dict[str, Any]:
    """The fields of ``llava.serve.protocol.schemas.GenerationBody`` and of plug-ins.

    Raises RequestFailure or a ``LlavaError`` for what cannot be done.
    """
    check_supported(body)
    extra = plugin_fields(body, headers)
    most = most_tokens(body)
    chat = render_prompt(body.messages, await controller.template(body.model))
    stops = [body.stop] if isinstance(body.stop, str) else list(body.stop or ())
    asked: dict[str, Any] = {
        "model": body.model,
        "prompt": chat.prompt,
        "images": await images.base64_of(chat.pictures),
        "max_new_tokens": most,
        "stop": [*([chat.stop] if chat.stop else []), *stops],
        "temperature": body.temperature,
        "top_p": body.top_p,
        "seed": body.seed,
    }
    return {**{name: value for name, value in asked.items() if value is not None}, **extra}


def check_supported(body: ChatBody) -> None:
    """Raise RequestFailure for a field that is not heeded here and would change the answer."""
    for name, value in (body.model_extra or {}).items():
        if name in UNSUPPORTED and value is not None and value not in UNSUPPORTED[name]:
            message = f"{name} is not supported by this server; leave it out"
            raise RequestFailure(400, "unsupported_parameter", message, param=name)
    if body.stream_options is not None and not body.stream:
        message = "stream_options is given, but stream is not true"
        raise RequestFailure(400, "bad_request", message, param="stream_options")


def most_tokens(body: ChatBody) -> int:
    """The longest answer that is asked for. Raises RequestFailure where the two fields for it differ."""
    given = {most for most in (body.max_tokens, body.max_completion_tokens) if most is not None}
    if len(given) > 1:
        message = f"max_tokens is {body.max_tokens} and max_completion_tokens {body.max_completion_tokens}; give one"
        raise RequestFailure(400, "bad_request", message, param="max_completion_tokens")
    return given.pop() if given else NO_TOKEN_LIMIT


def plugin_fields(body: ChatBody, headers: Mapping[str, str]) -> dict[str, Any]:
    """What the client gave of the plug-ins' fields, in its body or by header. Raises RequestFailure where both."""
    names = merged(hooks().request_fields())
    given = {name: getattr(body, name) for name in names if name in body.model_fields_set}
    by_header = merged(hooks().fields_of_headers(headers=headers))
    for name in by_header:
        if given.get(name) is not None:
            message = f"{name} is given in the body, and by a header; give it once"
            raise RequestFailure(400, "bad_request", message, param=name)
    return {**given, **by_header}
