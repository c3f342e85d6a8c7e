"""A request without an answer: the HTTP status, upstream's number, a word for programs, a message for people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from llava.errors import LlavaError
from llava.serve.protocol.schemas import WORKER_FAILED, Failure, chunk


@dataclass
class RequestFailure(Exception):
    """Raised wherever a request ends without an answer. ``retry_after`` is in seconds; ``param`` names the field that
    is at fault, where one is."""

    status: int
    reason: str
    message: str
    error_code: int = WORKER_FAILED
    retry_after: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    param: str | None = None

    def __post_init__(self) -> None:
        self.message = self.message.encode(errors="backslashreplace").decode()  # it may repeat what no UTF-8 can carry

    def __str__(self) -> str:
        return self.message

    def body(self, request_id: str | None) -> dict[str, Any]:
        """The reply's fields."""
        failure = Failure(text=self.message, error_code=self.error_code, reason=self.reason, request_id=request_id)
        return failure.model_dump()

    def chunk(self, request_id: str | None) -> bytes:
        """The same in a stream that has begun."""
        fields = self.body(request_id)
        return chunk(fields.pop("text"), **fields)

    def response(self, request_id: str | None) -> JSONResponse:
        """The same as a reply of its own."""
        return JSONResponse(self.body(request_id), self.status, self.all_headers())

    def all_headers(self) -> dict[str, str]:
        """The reply's headers."""
        after = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return {**self.headers, **after}


FormOf = Callable[[RequestFailure, "str | None"], JSONResponse]  # failure and request id -> reply


REPLIES: dict[int | str, dict[str, Any]] = {
    status: {"model": Failure, "description": description}
    for status, description in {
        400: "the body is not JSON, or what it asks for cannot be done",
        403: "wrong registration token, or an address that is not allowed",
        404: "no such model",
        408: "the body took too long to arrive",
        413: "the body is too large",
        422: "a field is missing or of the wrong type",
        429: "the queue is full",
        502: "a worker cannot be reached",
        503: "no worker, or one that is shutting down",
    }.items()
}
STREAM_REPLIES: dict[int | str, dict[str, Any]] = {
    **REPLIES,
    200: {
        "description": "JSON objects, each ended by a zero byte; `text` is the prompt and the answer so far",
        "content": {"application/octet-stream": {}},
    },
    429: {**REPLIES[429], "headers": {"Retry-After": {"schema": {"type": "integer"}}}},
}


def request_id_of(request: Request) -> str | None:
    """The id that the request goes by in the logs (see ``llava.serve.middleware.request_ids``)."""
    return getattr(request.state, "request_id", None)


def validation_message(error: RequestValidationError) -> tuple[int, str]:
    """Status and message. What was sent is not repeated: it may be huge, or no text at all."""
    problems = error.errors()
    broken = next((problem for problem in problems if problem["type"] == "json_invalid"), None)
    if broken is not None:
        return 400, f"the body is not JSON: {broken.get('ctx', {}).get('error', broken['msg'])}"
    said = []
    for problem in problems[:5]:
        place = ".".join(str(part) for part in problem["loc"] if part != "body")[:200]
        said.append(f"{place or 'the body'}: {problem['msg'][:300]}")
    if any(tuple(problem["loc"]) == ("body",) for problem in problems):
        said.append("send a JSON object, with the header Content-Type: application/json")
    return 422, "; ".join(said)


def place_of(error: RequestValidationError) -> str | None:
    """The field that is at fault, where it is one of the body's own."""
    place = next((problem["loc"][1:] for problem in error.errors() if len(problem["loc"]) > 1), ())
    return str(place[0])[:100] if place and isinstance(place[0], str) else None


def install(app: FastAPI, form: FormOf = RequestFailure.response) -> None:
    """Answer every failure of ``app`` in one form."""

    async def failed(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestFailure)
        return form(error, request_id_of(request))

    async def user_error(request: Request, error: Exception) -> JSONResponse:
        return form(RequestFailure(400, "bad_request", str(error)), request_id_of(request))

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        status, message = validation_message(error)
        return form(RequestFailure(status, "bad_request", message, param=place_of(error)), request_id_of(request))

    async def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        message = f"{request.method} {request.url.path[:200]}: {error.detail or HTTPStatus(error.status_code).phrase}"
        failure = RequestFailure(error.status_code, "bad_request", message, headers=dict(error.headers or {}))
        return form(failure, request_id_of(request))

    app.add_exception_handler(RequestFailure, failed)
    app.add_exception_handler(LlavaError, user_error)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, refused)
