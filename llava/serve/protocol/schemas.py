"""What travels between clients, controller and workers: the bodies of requests, and the chunks of an answer.

An answer is a stream of JSON objects, each ended by a zero byte: ``{"text": prompt + answer so far, "error_code": 0}``.
A failure is one object whose ``text`` says what happened. The numbers are upstream's.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

OK = 0
WORKER_FAILED = 1  # the worker refused the request, or failed while it answered
NO_WORKER = 2  # the controller knows no worker for this model
WORKER_UNREACHABLE = 3  # the controller cannot reach the worker, or lost it in the middle of an answer

END = b"\0"
PRINTABLE = r"^[^\x00-\x1f\x7f]*$"
Name = Annotated[str, Field(max_length=300, pattern=PRINTABLE)]
Count = Annotated[int, Field(ge=0, le=1_000_000_000)]


class Body(BaseModel):
    """A request's body. Fields that are not known are passed over, as upstream does."""

    model_config = ConfigDict(allow_inf_nan=False)


class WorkerStatus(Body):
    """What a worker says of itself. ``queue_length`` counts running and waiting requests."""

    model_names: list[Name] = Field(max_length=100)
    speed: float = Field(default=1, gt=0, le=1e6)
    queue_length: Count = 0


class Registration(Body):
    """``worker_name`` is the worker's address. Without a status the controller asks the worker for it."""

    worker_name: Name
    check_heart_beat: bool
    worker_status: WorkerStatus | None = None


class HeartBeat(Body):
    """A worker's sign of life."""

    worker_name: Name
    queue_length: Count


class UnregisterRequest(Body):
    """A worker that takes no more requests."""

    worker_name: Name


class WorkerAddressRequest(Body):
    """Which model is meant."""

    model: Name


class RoutedRequest(WorkerAddressRequest):
    """A request for an answer as the controller reads it; the worker reads the rest."""

    model_config = ConfigDict(extra="allow")


class GenerationBody(Body):
    """A request for an answer, in upstream's fields. ``prompt`` is rendered by the client, with an ``<image>`` for each
    picture of ``images`` (base64). Plug-ins add fields of their own."""

    model: Name = Field(default="", description="must be the worker's, where it is given")
    prompt: str = Field(min_length=1)
    images: list[str] | None = Field(default=None, description="base64 of PNG, JPEG, WebP, BMP or still GIF files")
    temperature: float = Field(default=1.0, ge=0, le=100, description="up to 0.001 is greedy")
    top_p: float = Field(default=1.0, ge=0, le=1, description="0 keeps the likeliest token only")
    max_new_tokens: int = Field(default=256, ge=1, description="longest answer; the worker's own limit holds too")
    stop: str | list[str] | None = Field(default=None, description="text that ends the answer and is no part of it")
    seed: int | None = Field(
        default=None, ge=-(2**63), lt=2**63, description="the same draws again, where the temperature is above 0"
    )


class Failure(BaseModel):
    """A failure, as an HTTP reply or as the last chunk of a stream."""

    text: str
    error_code: int
    reason: str
    request_id: str | None = None


def chunk(text: str, error_code: int = OK, **fields: Any) -> bytes:
    """One object of a stream."""
    return json.dumps({"text": text, "error_code": error_code, **fields}, allow_nan=False).encode() + END
