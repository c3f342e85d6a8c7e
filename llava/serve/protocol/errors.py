"""Turns failures into replies: an HTTP status, upstream's error code, a machine-readable reason, a readable message."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from llava.errors import LlavaError
from llava.serve.protocol.schemas import NO_WORKER, WORKER_FAILED, Failure, chunk
from llava.serve.protocol.validation import describe_problems


@dataclass
class RequestFailure(Exception):
    """Why a request ends without an answer, raised wherever that is found out.

    ``status``: HTTP status. ``reason``: code for programs. ``retry_after``: seconds. ``param``: the field that is at
    fault, where there is one.
    """

    status: int
    reason: str
    message: str
    error_code: int = WORKER_FAILED
    retry_after: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    param: str | None = None

    def __post_init__(self) -> None:
        # The message may quote the client's text, which JSON lets hold what UTF-8 cannot encode.
        self.message = self.message.encode(errors="backslashreplace").decode()

    def __str__(self) -> str:
        return self.message

    def body(self, request_id: str | None) -> dict[str, Any]:
        """Return the fields of the reply."""
        failure = Failure(text=self.message, error_code=self.error_code, reason=self.reason, request_id=request_id)
        return failure.model_dump()

    def chunk(self, request_id: str | None) -> bytes:
        """Encode the failure as the last chunk of a stream that has begun."""
        fields = self.body(request_id)
        return chunk(fields.pop("text"), **fields)

    def response(self, request_id: str | None) -> JSONResponse:
        """Make the HTTP reply to a request that is refused."""
        return JSONResponse(self.body(request_id), self.status, self.all_headers())

    def all_headers(self) -> dict[str, str]:
        """Return the headers of the reply, ``Retry-After`` among them."""
        after = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return {**self.headers, **after}


def no_worker(model: str, models: Sequence[str]) -> RequestFailure:
    """Return the failure of a request for a model that no worker serves; ``models``: those that are served."""
    if not models:
        return RequestFailure(503, "no_worker", "no worker is registered; start one, or try again later", NO_WORKER)
    message = f"no worker serves model {model!r}; there are: {', '.join(models)}"
    return RequestFailure(404, "no_such_model", message, NO_WORKER, param="model")


def failure_of_reply(status: int, headers: Mapping[str, str], content: bytes) -> RequestFailure:
    """Return the failure that another server's reply reports, to pass it on. Raises ValueError where it has none."""
    failure = Failure.model_validate_json(content)
    after = headers.get("Retry-After", "")
    return RequestFailure(
        error_status(status),
        failure.reason,
        failure.text,
        failure.error_code,
        int(after) if after.isdecimal() else None,
    )


def error_status(status: int) -> int:
    """Return the status of a reply that is passed on as a failure: its own, or 502 where that is none of an error."""
    return status if status >= 400 else 502


ErrorFormat = Callable[[RequestFailure, "str | None"], JSONResponse]  # (failure, request id) -> reply


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
    """Return the id that names the request in the logs (see ``llava.serve.middleware.request_ids``)."""
    return getattr(request.state, "request_id", None)


def validation_failure(error: RequestValidationError) -> RequestFailure:
    """Return the failure for a body that does not fit its schema: 400 where it is not JSON, else 422."""
    problems = error.errors()
    broken = next((problem for problem in problems if problem["type"] == "json_invalid"), None)
    if broken is not None:
        why = broken.get("ctx", {}).get("error", broken["msg"])
        return RequestFailure(400, "bad_request", f"the body is not JSON: {why}")
    message, field_at_fault = describe_problems(problems, error.body)
    if any(tuple(problem["loc"]) == ("body",) for problem in problems):
        message += "; send a JSON object, with the header Content-Type: application/json"
    return RequestFailure(422, "bad_request", message, param=field_at_fault)


def install(app: FastAPI, error_format: ErrorFormat = RequestFailure.response) -> None:
    """Make ``app`` answer every failure in one format: ours, a ``LlavaError``, a bad body, FastAPI's own."""

    async def failed(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestFailure)
        return error_format(error, request_id_of(request))

    async def user_error(request: Request, error: Exception) -> JSONResponse:
        return error_format(RequestFailure(400, "bad_request", str(error)), request_id_of(request))

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return error_format(validation_failure(error), request_id_of(request))

    async def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        message = f"{request.method} {request.url.path[:200]}: {error.detail or HTTPStatus(error.status_code).phrase}"
        failure = RequestFailure(error.status_code, "bad_request", message, headers=dict(error.headers or {}))
        return error_format(failure, request_id_of(request))

    app.add_exception_handler(RequestFailure, failed)
    app.add_exception_handler(LlavaError, user_error)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, refused)
