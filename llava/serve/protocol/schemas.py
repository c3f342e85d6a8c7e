"""Request bodies and answer chunks that travel between clients, controller and workers.

An answer is a stream of JSON objects, each ended by a zero byte: ``{"text": prompt + answer so far, "error_code": 0}``.
A failure is one object whose ``text`` says what happened. The error codes are upstream LLaVA's.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

OK = 0
WORKER_FAILED = 1  # the worker refused the request, or failed while it answered
NO_WORKER = 2  # no worker is registered for this model
WORKER_UNREACHABLE = 3  # the controller cannot reach the worker, or lost it in the middle of an answer
OTHER_TEMPLATE = "other_template"  # reason of a worker that has another prompt template than the request's

END = b"\0"
PRINTABLE = r"^[^\x00-\x1f\x7f]*$"
Name = Annotated[str, Field(max_length=300, pattern=PRINTABLE)]
MAX_COUNT = 1_000_000_000
MAX_GREEDY_TEMPERATURE = 1e-3  # as upstream
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]


class Body(BaseModel):
    """Base of request bodies. Unknown fields are ignored, as upstream does."""

    model_config = ConfigDict(allow_inf_nan=False)


class WorkerStatus(Body):
    """What a worker reports about itself. ``queue_length`` counts running and waiting requests."""

    model_names: list[Name] = Field(max_length=100)
    speed: float = Field(default=1, gt=0, le=1e6)
    queue_length: Count = 0


class Registration(Body):
    """Body of ``/register_worker``.

    ``worker_name`` is the worker's address. Without ``worker_status`` the controller asks the worker for it.
    """

    worker_name: Name
    check_heart_beat: bool
    worker_status: WorkerStatus | None = None


class HeartBeat(Body):
    """Body of ``/receive_heart_beat``: a worker's sign of life and its queue length."""

    worker_name: Name
    queue_length: Count


class UnregisterRequest(Body):
    """Body of ``/unregister_worker``: the address of a worker that takes no more requests."""

    worker_name: Name


class WorkerAddressRequest(Body):
    """Body of ``/get_worker_address``: the model to ask."""

    model: Name


class RoutedRequest(WorkerAddressRequest):
    """Generation request as the controller reads it: the model; all other fields are for the worker."""

    model_config = ConfigDict(extra="allow")


class GenerationBody(Body):
    """Body of ``/worker_generate_stream``, in upstream's fields; plug-ins add theirs.

    ``prompt`` is rendered by the client, with an ``<image>`` for each item of ``images``.
    """

    model: Name = Field(default="", description="name of the model; must be the worker's where it is given")
    prompt: str = Field(min_length=1)
    conv_mode: Name | None = Field(
        default=None, description="template of the prompt; a worker whose ``/ready`` names another refuses the request"
    )
    images: list[str] | None = Field(default=None, description="base64 of PNG, JPEG, WebP, BMP or still GIF files")
    temperature: float = Field(default=1.0, ge=0, le=100, description="up to 0.001 is greedy")
    top_p: float = Field(default=1.0, ge=0, le=1, description="0 keeps only the most probable token")
    max_new_tokens: int = Field(
        default=256, ge=1, description="maximum length of the answer in tokens, up to the worker's own limit"
    )
    stop: str | list[str] | None = Field(default=None, description="text that ends the answer and is not part of it")
    seed: int | None = Field(
        default=None, ge=-(2**63), lt=2**63, description="repeats the same draws, where the temperature is above 0"
    )
    top_k: int | None = Field(
        default=None, ge=-1, le=MAX_COUNT, description="keeps this many of the most probable tokens; 0 or -1 keeps all"
    )
    min_p: float = Field(
        default=0.0, ge=0, le=1, description="keeps tokens of at least this share of the best one's probability"
    )
    repetition_penalty: float | None = Field(
        default=None, ge=0.01, le=100, description="above 1: tokens of prompt and answer become less probable"
    )
    frequency_penalty: float = Field(
        default=0.0, ge=-2, le=2, description="subtracted from a token's logit for each time it is in the answer"
    )
    presence_penalty: float = Field(
        default=0.0, ge=-2, le=2, description="subtracted from the logit of every token that is in the answer"
    )
    min_tokens: int = Field(
        default=0, ge=0, le=MAX_COUNT, description="before this many tokens nothing ends the answer"
    )
    ignore_eos: bool = Field(default=False, description="the model's end token does not end the answer")
    progress: bool = Field(
        default=False,
        description="the answer begins with chunks that say its position in the queue, and what plug-ins decide for it",
    )


def is_sampled(temperature: float, top_p: float) -> bool:
    """Return whether tokens are drawn: temperatures near 0, and a ``top_p`` of 0, are greedy."""
    return temperature > MAX_GREEDY_TEMPERATURE and top_p > 0


class Failure(BaseModel):
    """A failure, as an HTTP reply or as the last chunk of a stream."""

    text: str
    error_code: int
    reason: str
    request_id: str | None = None


def chunk(text: str, error_code: int = OK, **fields: Any) -> bytes:
    """Encode one object of a stream, with the zero byte that ends it."""
    return json.dumps({"text": text, "error_code": error_code, **fields}, allow_nan=False).encode() + END
