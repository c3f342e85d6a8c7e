"""Turns failures into replies: an HTTP status, upstream's error code, a machine-readable reason, a readable message."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from llava.errors import LlavaError
from llava.serve.middleware.request_end import current_end
from llava.serve.protocol.schemas import NO_WORKER, WORKER_FAILED, Failure, chunk
from llava.serve.protocol.validation import describe_problems

MAX_NAMES = 20  # models that a message lists


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
        """Encode the failure, with its status, as the last chunk of a stream that has begun."""
        fields = self.body(request_id)
        return chunk(fields.pop("text"), **fields, status=self.status)

    def response(self, request_id: str | None) -> JSONResponse:
        """Make the HTTP reply to a request that is refused."""
        return JSONResponse(self.body(request_id), self.status, self.all_headers())

    def all_headers(self) -> dict[str, str]:
        """Return the headers of the reply, ``Retry-After`` among them."""
        after = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return {**self.headers, **after}


def shortened(names: Sequence[str]) -> str:
    """Return names for a message: all, or the first of very many."""
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def no_worker(model: str, models: Sequence[str]) -> RequestFailure:
    """Return the failure of a request for a model that no worker serves; ``models``: those that are served."""
    if not models:
        return RequestFailure(503, "no_worker", "no worker is registered; start one, or try again later", NO_WORKER)
    message = f"no worker serves model {model!r}; there are: {shortened(models)}"
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


# HTTP status of failures that arrive inside a stream without one, by their reason; 500 for all others.
STREAM_STATUSES = {
    "bad_request": 400,
    "timeout": 504,
    "out_of_memory": 503,
    "shutting_down": 503,
    "engine_failed": 503,
    "promise_out_of_reach": 503,
    "worker_lost": 502,
}


def failure_in_stream(chunk: Mapping[str, Any]) -> RequestFailure:
    """Return the failure that a chunk of an answer reports."""
    reason, status = str(chunk.get("reason", "worker_failed")), chunk.get("status")
    if not (isinstance(status, int) and 400 <= status < 600):
        status = STREAM_STATUSES.get(reason, 500)
    return RequestFailure(status, reason, str(chunk.get("text", "the worker failed")))


def error_status(status: int) -> int:
    """Return the status of a failure that is passed on: that of the reply, or 502 where that is none of an error."""
    return status if 400 <= status < 600 else 502


ErrorFormat = Callable[[RequestFailure, "str | None"], JSONResponse]  # (failure, request id) -> reply


async def refuse(
    failure: RequestFailure, error_format: ErrorFormat, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer a request with a failure, in an ASGI middleware, and record it as the request's end."""
    current_end().fail(failure)
    await error_format(failure, scope.get("state", {}).get("request_id"))(scope, receive, send)


REPLIES: dict[int | str, dict[str, Any]] = {
    status: {"model": Failure, "description": description}
    for status, description in {
        400: "the body is not JSON, or what it asks for cannot be done",
        403: "wrong registration token, or an address that is not allowed",
        404: "no such model",
        408: "the body took too long to arrive",
        413: "the body is too large",
        415: "the body is compressed, or not in UTF-8",
        421: "the header Host names another server",
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


def invalid_body(error: ValidationError, body: Any) -> RequestFailure:
    """Return the failure for a body that was checked outside of FastAPI."""
    problems = [{**problem, "loc": ("body", *problem["loc"])} for problem in error.errors()]
    return validation_failure(RequestValidationError(problems, body=body))


def install(app: FastAPI, error_format: ErrorFormat = RequestFailure.response) -> None:
    """Make ``app`` answer every failure in one format: ours, a ``LlavaError``, a bad body, FastAPI's own."""

    async def failed(request: Request, error: Exception) -> JSONResponse:
        failure = failure_of_error(error, request)
        current_end().fail(failure)
        return error_format(failure, request_id_of(request))

    for kind in (RequestFailure, LlavaError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, failed)


def failure_of_error(error: Exception, request: Request) -> RequestFailure:
    """Return the failure for an error that ``install`` handles."""
    if isinstance(error, RequestFailure):
        return error
    if isinstance(error, RequestValidationError):
        return validation_failure(error)
    if isinstance(error, HTTPException):
        message = f"{request.method} {request.url.path[:200]}: {error.detail or HTTPStatus(error.status_code).phrase}"
        return RequestFailure(error.status_code, "bad_request", message, headers=dict(error.headers or {}))
    return RequestFailure(400, "bad_request", str(error))
