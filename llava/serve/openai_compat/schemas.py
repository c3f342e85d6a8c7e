"""Bodies of the OpenAI-style API: what is asked, and what is answered."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model

from llava.plugins import hooks, merged
from llava.serve.protocol.schemas import Body, Name

# Fields of OpenAI's that would change the answer if they were heeded, and the values with which they change nothing.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
}


def _whole(text: str) -> str:
    """Raises ValueError for text that no UTF-8 can carry; JSON's escapes can."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("the text holds half of a surrogate pair") from error
    return text


Text = Annotated[str, AfterValidator(_whole)]


class ImageUrl(Body):
    """``detail`` is taken and makes no difference: every picture goes through the same tower."""

    url: Text = Field(
        min_length=1, description="data:image/...;base64,... or, where the server allows it, http(s)://..."
    )
    detail: Literal["auto", "low", "high"] | None = None


class TextPart(Body):
    """Words."""

    type: Literal["text"]
    text: Text


class ImagePart(Body):
    """A picture."""

    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Message(Body):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[Part]


class StreamOptions(Body):
    """How a stream ends."""

    include_usage: bool | None = None


class ChatBody(Body):
    """A request for a chat completion. Plug-ins add fields of their own."""

    model_config = ConfigDict(extra="allow")

    model: Name
    messages: list[Message] = Field(min_length=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    stop: Text | Annotated[list[Text], Field(max_length=4)] | None = None
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stream: bool | None = None
    stream_options: StreamOptions | None = None


def chat_model() -> type[ChatBody]:
    """The request's body with the plug-ins' fields."""
    return create_model("ChatRequest", __base__=ChatBody, **merged(hooks().request_fields()))


class Model(BaseModel):
    """A model that can be asked. ``created``: when this server began, as nobody knows the model's own time."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "llava"


class ModelList(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[Model]


class Usage(BaseModel):
    """Tokens; a picture's positions count as the prompt's."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AssistantMessage(BaseModel):
    """The model's turn."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    """The one answer."""

    index: Literal[0] = 0
    message: AssistantMessage
    logprobs: None = None
    finish_reason: Literal["stop", "length"]


class Completion(BaseModel):
    """A whole answer. ``llava``: the worker's figures, such as time to the first token, and what plug-ins say."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    llava: dict[str, Any]


class ErrorFacts(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(BaseModel):
    """A request without an answer."""

    error: ErrorFacts
