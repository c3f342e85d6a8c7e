"""Translates a request for a chat completion into a worker's generation request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llava.plugins import hooks, merged
from llava.serve.openai_compat.controller_client import ControllerClient
from llava.serve.openai_compat.image_urls import ImageUrls
from llava.serve.openai_compat.prompt import render_prompt
from llava.serve.openai_compat.schemas import UNSUPPORTED, ChatBody
from llava.serve.protocol.errors import RequestFailure

NO_TOKEN_LIMIT = 1_000_000  # tokens; the worker cuts it to its own limit


async def generation_body(
    body: ChatBody, headers: Mapping[str, str], controller: ControllerClient, images: ImageUrls
) -> dict[str, Any]:
    """Return the fields of ``llava.serve.protocol.schemas.GenerationBody``, and the plug-ins' fields.

    Raises RequestFailure or a ``LlavaError`` for what cannot be done.
    """
    check_supported(body)
    extra = plugin_fields(body, headers)
    max_new_tokens = token_limit(body)
    chat = render_prompt(body.messages, await controller.template(body.model))
    stops = [body.stop] if isinstance(body.stop, str) else list(body.stop or ())
    fields: dict[str, Any] = {
        "model": body.model,
        "prompt": chat.prompt,
        "images": await images.read_base64(chat.image_urls),
        "max_new_tokens": max_new_tokens,
        "stop": [*([chat.stop] if chat.stop else []), *stops],
        "temperature": body.temperature,
        "top_p": body.top_p,
        "seed": body.seed,
    }
    return {**{name: value for name, value in fields.items() if value is not None}, **extra}


def check_supported(body: ChatBody) -> None:
    """Raise RequestFailure for a field that is not supported here and would change the answer."""
    for name, value in (body.model_extra or {}).items():
        if name in UNSUPPORTED and value is not None and value not in UNSUPPORTED[name]:
            message = f"{name} is not supported by this server; leave it out"
            raise RequestFailure(400, "unsupported_parameter", message, param=name)
    if body.stream_options is not None and not body.stream:
        message = "stream_options is given, but stream is not true"
        raise RequestFailure(400, "bad_request", message, param="stream_options")


def token_limit(body: ChatBody) -> int:
    """Return the requested limit of the answer, in tokens. Raises RequestFailure where its two fields differ."""
    given = {limit for limit in (body.max_tokens, body.max_completion_tokens) if limit is not None}
    if len(given) > 1:
        message = f"max_tokens is {body.max_tokens} and max_completion_tokens {body.max_completion_tokens}; give one"
        raise RequestFailure(400, "bad_request", message, param="max_completion_tokens")
    return given.pop() if given else NO_TOKEN_LIMIT


def plugin_fields(body: ChatBody, headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the plug-ins' fields that the client gave, in the body or by header. Raises RequestFailure for both."""
    names = merged(hooks().request_fields())
    given = {name: getattr(body, name) for name in names if name in body.model_fields_set}
    by_header = merged(hooks().fields_of_headers(headers=headers))
    for name in by_header:
        if given.get(name) is not None:
            message = f"{name} is given in the body, and by a header; give it once"
            raise RequestFailure(400, "bad_request", message, param=name)
    return {**given, **by_header}
