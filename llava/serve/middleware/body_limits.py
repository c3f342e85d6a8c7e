"""Guards the way in and out of a server: size, depth and time of a request's body, time of a reply's pieces."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import anyio
import anyio.to_thread
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llava.serve.protocol.errors import FormOf, RequestFailure

MIB = 1024 * 1024
MAX_STRINGS, MAX_BRACKETS = 100_000, 10_000  # in one body; an honest one has a few dozen
DISCARDED = 4  # bodies up to so many times the limit are read to their end, so that the client can read the refusal
BIG = 256 * 1024  # bytes; larger bodies are looked through in a thread


@dataclass(frozen=True)
class BodyLimits:
    """max_bytes: of a body. max_depth: of brackets within brackets in its JSON. Times in seconds."""

    max_bytes: int = 32 * MIB
    max_depth: int = 16
    body_timeout_s: float = 30.0
    send_timeout_s: float = 60.0


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that ``from_flags`` reads."""
    group = parser.add_argument_group("limits of every request")
    defaults = BodyLimits()
    group.add_argument("--max-body-mib", type=float, default=defaults.max_bytes / MIB, help="largest request body, MiB")
    group.add_argument("--max-json-depth", type=int, default=defaults.max_depth, help="brackets within brackets")
    group.add_argument(
        "--body-timeout", type=float, default=defaults.body_timeout_s, help="seconds for a request's body to arrive"
    )
    group.add_argument(
        "--send-timeout",
        type=float,
        default=defaults.send_timeout_s,
        help="seconds that a client may leave a piece of its answer unread before it is let go",
    )


def from_flags(args: argparse.Namespace) -> BodyLimits:
    """The limits that the flags set."""
    return BodyLimits(int(args.max_body_mib * MIB), args.max_json_depth, args.body_timeout, args.send_timeout)


def check_depth(body: bytes, max_depth: int) -> None:
    """Raise RequestFailure for JSON nested too deep, or of too many parts, in time linear in its length.

    What is not JSON may pass; the parser refuses it.
    """
    bare = body.replace(b"\\\\", b"").replace(b'\\"', b"")  # the quotes that are left open and close strings
    if bare.count(b'"') > 2 * MAX_STRINGS:
        raise RequestFailure(400, "bad_request", f"the body has more than {MAX_STRINGS:,} strings")
    outside = b"".join(bare.split(b'"')[::2])
    brackets = outside.translate(None, delete=bytes(set(range(256)) - set(b"[]{}")))
    if len(brackets) > 2 * MAX_BRACKETS:
        raise RequestFailure(400, "bad_request", f"the body has more than {MAX_BRACKETS:,} objects and lists")
    depth = 0
    for bracket in brackets:
        depth += 1 if bracket in b"[{" else -1
        if depth > max_depth:
            raise RequestFailure(400, "bad_request", f"the body's JSON is nested more than {max_depth} deep")


class ClientGone(Exception):
    """The client left before its request was read."""


class UnreadAnswer(Exception):
    """The client left a piece of its answer unread for too long."""


class LimitedBodies:
    """ASGI middleware: reads each body whole, within the limits, and hands it on. ``form``: of a refusal."""

    def __init__(self, app: ASGIApp, limits: BodyLimits, form: FormOf = RequestFailure.response) -> None:
        self.app = app
        self.limits = limits
        self.form = form

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        patient = self._patient(send)
        try:
            body = await self._read(receive)
            if len(body) > BIG:
                await anyio.to_thread.run_sync(check_depth, body, self.limits.max_depth)
            else:
                check_depth(body, self.limits.max_depth)
        except ClientGone:
            return
        except RequestFailure as failure:
            request_id = scope.get("state", {}).get("request_id")
            await self.form(failure, request_id)(scope, receive, patient)
            return
        await self.app(scope, _replay(body, receive), patient)

    async def _read(self, receive: Receive) -> bytes:
        limit, pieces, size = self.limits.max_bytes, [], 0
        too_large = RequestFailure(413, "too_large", f"the body is larger than {limit:,} bytes; send less, or smaller")
        with anyio.move_on_after(self.limits.body_timeout_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                piece = message.get("body", b"")
                size += len(piece)
                if size <= limit:
                    pieces.append(piece)
                elif size > DISCARDED * limit:
                    raise too_large
                if not message.get("more_body", False):
                    if size > limit:
                        raise too_large
                    return b"".join(pieces)
        seconds = self.limits.body_timeout_s
        raise RequestFailure(408, "timeout", f"the request's body did not arrive within {seconds:g} s")

    def _patient(self, send: Send) -> Send:
        async def sending(message: Message) -> None:
            with anyio.move_on_after(self.limits.send_timeout_s) as scope:
                await send(message)
            if scope.cancelled_caught:
                raise UnreadAnswer(f"the client left its answer unread for {self.limits.send_timeout_s:g} s")

        return sending


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body as one message; then what really comes, which is the client's going away."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
