"""Checks the text of a request's JSON before it is parsed: its encoding, its nesting, the number of its parts."""

from __future__ import annotations

from collections.abc import Mapping
from email.message import Message

from llava.serve.protocol.errors import RequestFailure

MAX_STRINGS, MAX_BRACKETS = 100_000, 10_000  # in one body; an honest one has a few dozen
CHARSETS = ("utf-8", "utf8", "us-ascii")


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuse a body that is compressed, or in another encoding than UTF-8, by its headers. Raises RequestFailure."""
    coding = headers.get("content-encoding", "").strip().lower()
    if coding not in ("", "identity"):
        message = f"the body has the content encoding {coding[:50]!r}; send it as it is"
        raise RequestFailure(415, "bad_request", message, headers={"Accept-Encoding": "identity"})
    kind = Message()
    kind["content-type"] = headers.get("content-type", "").replace("\n", " ").replace("\r", " ")
    charset = kind.get_param("charset")
    if charset is not None and str(charset).lower() not in CHARSETS:
        raise RequestFailure(415, "bad_request", f"the body has the charset {str(charset)[:50]!r}; send UTF-8")


def check_text(body: bytes, max_depth: int) -> None:
    """Refuse a body that is not UTF-8, or whose JSON is nested too deeply. Raises RequestFailure.

    Parsers take UTF-16 and UTF-32 for JSON as well, whose brackets and quotes are other bytes. Each has zero bytes,
    which JSON in UTF-8 has not.
    """
    zero = body.find(b"\0")
    if zero >= 0:
        raise RequestFailure(400, "bad_request", f"the body has a zero byte at {zero:,}; expected JSON in UTF-8")
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"the body is not UTF-8 at byte {error.start:,}; expected JSON in UTF-8"
        raise RequestFailure(400, "bad_request", message) from error
    check_depth(body, max_depth)


def check_depth(body: bytes, max_depth: int) -> None:
    """Refuse JSON that is nested too deeply or has too many parts, in time linear in its length.

    Raises RequestFailure. What is not JSON may pass; the parser refuses it.
    """
    unescaped = body.replace(b"\\\\", b"").replace(b'\\"', b"")  # the quotes that are left open and close strings
    if unescaped.count(b'"') > 2 * MAX_STRINGS:
        raise RequestFailure(400, "bad_request", f"the body has more than {MAX_STRINGS:,} strings")
    outside_strings = b"".join(unescaped.split(b'"')[::2])
    brackets = outside_strings.translate(None, delete=bytes(set(range(256)) - set(b"[]{}")))
    if len(brackets) > 2 * MAX_BRACKETS:
        raise RequestFailure(400, "bad_request", f"the body has more than {MAX_BRACKETS:,} objects and lists")
    depth = 0
    for bracket in brackets:
        depth += 1 if bracket in b"[{" else -1
        if depth > max_depth:
            raise RequestFailure(400, "bad_request", f"the body's JSON is nested more than {max_depth} deep")
