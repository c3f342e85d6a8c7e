"""Puts failures into the OpenAI API's error format: ``{"error": {"message", "type", "param", "code"}}``."""

from __future__ import annotations

from typing import Any

from fastapi.responses import JSONResponse

from llava.serve.openai_compat.schemas import ErrorReply
from llava.serve.protocol.errors import RequestFailure

# Our reasons for which OpenAI's API has a code; all other reasons are the code themselves.
CODES = {"no_such_model": "model_not_found", "queue_full": "rate_limit_exceeded"}

REPLIES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorReply, "description": description}
    for status, description in {
        400: "the body is not JSON, or what it asks for cannot be done",
        401: "the API key is missing or wrong",
        404: "no such model",
        408: "the body took too long to arrive",
        413: "the body is too large",
        429: "the queue is full; Retry-After says when to come again",
        500: "the worker failed",
        502: "the controller or the worker cannot be reached, or was lost",
        503: "no worker, or one that is shutting down",
        504: "the answer took too long",
    }.items()
}
REPLIES["4XX"] = REPLIES[400]  # replaces the 422 that FastAPI would document


def error_body(failure: RequestFailure) -> dict[str, Any]:
    """Return the fields of the reply."""
    error = {
        "message": failure.message,
        "type": _type(failure.status),
        "param": failure.param,
        "code": CODES.get(failure.reason, failure.reason),
    }
    return {"error": error}


def error_response(failure: RequestFailure, request_id: str | None) -> JSONResponse:
    """Make the HTTP reply; the request's id is in its header. A status 422 becomes 400, as in OpenAI's API."""
    status = 400 if failure.status == 422 else failure.status
    return JSONResponse(error_body(failure), status, failure.all_headers())


def _type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"
