"""Translates a request for a chat completion into a worker's generation request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError, create_model

from llava.plugins import hooks, merged
from llava.serve.openai_compat.image_urls import ImageUrls
from llava.serve.openai_compat.prompt import render_prompt
from llava.serve.openai_compat.schemas import ANY, STREAM_OPTIONS_WITHOUT_EFFECT, WITHOUT_EFFECT, ChatBody
from llava.serve.openai_compat.templates import Templates
from llava.serve.protocol.errors import RequestFailure
from llava.serve.protocol.schemas import Body

NO_TOKEN_LIMIT = 1_000_000_000  # tokens; the worker cuts it to its own limit
# Fields that a worker takes under the same name.
PASSED_ON = (
    "temperature",
    "top_p",
    "seed",
    "top_k",
    "min_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "min_tokens",
    "ignore_eos",
)


async def generation_body(
    body: ChatBody, headers: Mapping[str, str], templates: Templates, images: ImageUrls
) -> dict[str, Any]:
    """Return the fields of ``llava.serve.protocol.schemas.GenerationBody``, and the plug-ins' fields.

    Raises RequestFailure or a ``LlavaError`` for what cannot be done.
    """
    check_supported(body)
    extra = plugin_fields(body, headers)
    max_new_tokens = token_limit(body)
    template = await templates.of(body.model)
    chat = render_prompt(body.messages, template.conversation)
    stops = [body.stop] if isinstance(body.stop, str) else list(body.stop or ())
    if chat.stop and not body.ignore_eos:  # the template's separator ends an answer as the end token does
        stops.insert(0, chat.stop)
    fields: dict[str, Any] = {
        "model": body.model,
        "conv_mode": template.mode,
        "prompt": chat.prompt,
        "images": await images.read_base64(chat.image_urls),
        "max_new_tokens": max_new_tokens,
        "stop": stops,
        **{name: getattr(body, name) for name in PASSED_ON},
    }
    return {**{name: value for name, value in fields.items() if value is not None}, **extra}


def check_supported(body: ChatBody) -> None:
    """Raise RequestFailure for a field that is not supported here, except with a value that asks for nothing."""
    _refuse_effects(body, WITHOUT_EFFECT)
    if body.stream_options is None:
        return
    _refuse_effects(body.stream_options, STREAM_OPTIONS_WITHOUT_EFFECT, "stream_options.")
    if not body.stream:
        message = "stream_options is given, but stream is not true"
        raise RequestFailure(400, "bad_request", message, param="stream_options")


def _refuse_effects(given: Body, harmless: Mapping[str, Sequence[Any]], parent: str = "") -> None:
    """Raise RequestFailure for a field that the model of ``given`` does not declare, but for harmless values."""
    for name, value in (given.model_extra or {}).items():
        values = harmless.get(name, ())
        if value is not None and ANY not in values and value not in values:
            full_name = parent + name[:100]
            shown = full_name if full_name.isprintable() else ascii(full_name)
            message = f"{shown} is not supported by this server with this value; leave it out"
            raise RequestFailure(400, "unsupported_parameter", message, param=full_name)


def token_limit(body: ChatBody) -> int:
    """Return the requested limit of the answer, in tokens. Raises RequestFailure where its two fields differ."""
    given = {limit for limit in (body.max_tokens, body.max_completion_tokens) if limit is not None}
    if len(given) > 1:
        message = f"max_tokens is {body.max_tokens} and max_completion_tokens {body.max_completion_tokens}; give one"
        raise RequestFailure(400, "bad_request", message, param="max_completion_tokens")
    limit = given.pop() if given else NO_TOKEN_LIMIT
    if body.min_tokens is not None and body.min_tokens > limit:
        message = f"min_tokens is {body.min_tokens:,}, but the answer may have {limit:,} tokens at most; give less"
        raise RequestFailure(400, "bad_request", message, param="min_tokens")
    return limit


def plugin_fields(body: ChatBody, headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the plug-ins' fields that the client gave, in the body or by header. Raises RequestFailure for both."""
    names = merged(hooks().request_fields())
    given = {name: getattr(body, name) for name in names if name in body.model_fields_set}
    elsewhere = {
        "in vllm_xargs": _extra_fields(body, names),
        "by a header": merged(hooks().fields_of_headers(headers=headers)),
    }
    for origin, fields in elsewhere.items():
        for name, value in fields.items():
            if given.get(name) is not None:
                message = f"{name} is given twice, once {origin}; give it once"
                raise RequestFailure(400, "bad_request", message, param=name)
            given[name] = value
    return given


def _extra_fields(body: ChatBody, names: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``vllm_xargs``, checked as the fields of these names are. Raises RequestFailure for others."""
    given = body.vllm_xargs or {}
    for name in given:
        if name not in names:
            message = f"vllm_xargs has {name[:100]!r}; expected some of {', '.join(names)}"
            raise RequestFailure(400, "unsupported_parameter", message, param="vllm_xargs")
    try:
        checked = create_model("ExtraFields", **{name: names[name] for name in given})(**given)
    except ValidationError as error:
        detail = error.errors()[0]
        where = ".".join(map(str, ("vllm_xargs", *detail["loc"])))
        raise RequestFailure(400, "bad_request", f"{where}: {detail['msg']}", param="vllm_xargs") from error
    return {name: getattr(checked, name) for name in given}
