"""Request and reply bodies of the OpenAI-style API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model

from llava.plugins import hooks, merged
from llava.serve.protocol.schemas import MAX_COUNT, Body, Name

ANY: Any = object()
# Fields that have no effect here, with the values that ask for none: any other value, and any other field, is refused.
# OpenAI's own API refuses fields that it does not know, too.
WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "user": (ANY,),
    "metadata": (ANY,),
    "store": (ANY,),
    "service_tier": (ANY,),
    "safety_identifier": (ANY,),
    "prompt_cache_key": (ANY,),
    "prompt_cache_retention": (ANY,),
    "priority": (0,),
    "n": (1,),
    "best_of": (1,),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "parallel_tool_calls": (ANY,),  # of no meaning without tools
    "response_format": ({"type": "text"},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "stop_token_ids": ([],),
    "bad_words": ([],),
    "use_beam_search": (False,),
    "length_penalty": (1,),
    "skip_special_tokens": (True,),
    "include_stop_str_in_output": (False,),
    "add_generation_prompt": (True,),
    "echo": (False,),
}

STREAM_OPTIONS_WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "include_obfuscation": (False,),
    "continuous_usage_stats": (False,),
}


def _check_encodable(text: str) -> str:
    """Return the text. Raises ValueError where UTF-8 cannot encode it; JSON's escapes can hold such text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("the text holds half of a surrogate pair") from error
    return text


Text = Annotated[str, AfterValidator(_check_encodable)]


class ImageUrl(Body):
    """Where an image is. ``detail`` is accepted and ignored: every image is preprocessed in the same way."""

    url: Text = Field(
        min_length=1, description="data:image/...;base64,... or, where the server allows it, http(s)://..."
    )
    detail: Literal["auto", "low", "high"] | None = None


class TextPart(Body):
    """Text in a message."""

    type: Literal["text"]
    text: Text


class ImagePart(Body):
    """Image in a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


class RefusalPart(Body):
    """Text of an assistant's message that refuses to answer."""

    type: Literal["refusal"]
    refusal: Text


Part = Annotated[TextPart | ImagePart | RefusalPart, Field(discriminator="type")]


class Message(Body):
    """One message of the chat, also as the API answered it. ``refusal``: the text of an assistant that refused."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Text | list[Part] | None = None
    refusal: Text | None = None
    tool_calls: list[Any] | None = None
    function_call: dict[str, Any] | None = None


class StreamOptions(Body):
    """Options of a streamed answer. Others are refused as the body's own fields are."""

    model_config = ConfigDict(extra="allow")

    include_usage: bool | None = None


class ChatBody(Body):
    """Body of a request for a chat completion; plug-ins add their fields."""

    model_config = ConfigDict(extra="allow")

    model: Name
    messages: list[Message] = Field(min_length=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    stop: Text | Annotated[list[Text], Field(max_length=4)] | None = None
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=100)
    top_k: int | None = Field(default=None, ge=-1, le=MAX_COUNT)
    min_p: float | None = Field(default=None, ge=0, le=1)
    min_tokens: int | None = Field(default=None, ge=0, le=MAX_COUNT)
    ignore_eos: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    vllm_xargs: dict[str, Any] | None = None  # fields of plug-ins, where a client's library has no other place for them


def chat_model() -> type[ChatBody]:
    """Make the model of the request's body, with the plug-ins' fields."""
    return create_model("ChatRequest", __base__=ChatBody, **merged(hooks().request_fields()))


class Model(BaseModel):
    """A model that can be asked. ``created``: when this server started; the model's own date is not known."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "llava"


class ModelList(BaseModel):
    """List of the models that can be asked."""

    object: Literal["list"] = "list"
    data: list[Model]


FinishReason = Literal["stop", "length"]


class Usage(BaseModel):
    """Token counts of an answer; image tokens count as the prompt's."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AssistantMessage(BaseModel):
    """The message that the model answers with."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    """The answer; there is always one."""

    index: Literal[0] = 0
    message: AssistantMessage
    logprobs: None = None
    finish_reason: FinishReason
    stop_reason: str | None = None


class Completion(BaseModel):
    """A complete answer. ``llava``: the worker's metadata, such as the TTFT, and the plug-ins' metadata."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    llava: dict[str, Any]


class ErrorDetail(BaseModel):
    """Message, type and code of a failure; ``param``: the field that is at fault."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(BaseModel):
    """Reply to a request that failed."""

    error: ErrorDetail
