"""The keys that clients of the OpenAI-style API show."""

from __future__ import annotations

import argparse
import os

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from llava.errors import OptionError
from llava.serve.middleware import registration_token
from llava.serve.protocol.errors import FormOf, RequestFailure

VARIABLE = "LLAVA_API_KEYS"


def add_flag(parser: argparse.ArgumentParser) -> None:
    """``--api-key-file``. No flag takes a key itself: other users can list a process's flags."""
    parser.add_argument(
        "--api-key-file",
        help=f"file with a key a line (# begins a comment); more are read from ${VARIABLE}, set apart by commas. "
        "Without any, everyone may ask",
    )


def keys_of(args: argparse.Namespace) -> tuple[str, ...]:
    """All keys. Raises OptionError for a file that cannot be read or has none, and for a key no header can carry."""
    keys = [key.strip() for key in os.environ.get(VARIABLE, "").split(",")]
    if args.api_key_file is not None:
        keys += _of_file(args.api_key_file)
    keys = [key for key in keys if key]
    for place, key in enumerate(keys, start=1):
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise OptionError(f"API key {place} has characters that a header cannot carry; use printable ASCII")
    return tuple(keys)


def _of_file(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            keys = [line.partition("#")[0].strip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"--api-key-file {path!r} cannot be read: {error}") from error
    if not any(keys):
        raise OptionError(f"--api-key-file {path!r} holds no key; write one a line")
    return keys


class ApiKeys:
    """ASGI middleware: refuses requests without a right key before their body is read. No keys: all may pass."""

    def __init__(self, app: ASGIApp, keys: tuple[str, ...], form: FormOf, open_paths: tuple[str, ...] = ()) -> None:
        self.app = app
        self.keys = keys
        self.form = form
        self.open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        guarded = scope["type"] == "http" and self.keys and scope["path"] not in self.open_paths
        shown = Headers(scope=scope).get("Authorization") if guarded else None
        if guarded and not any(registration_token.fits(key, shown) for key in self.keys):
            message = "the API key is missing or wrong; send the header Authorization: Bearer KEY"
            failure = RequestFailure(401, "invalid_api_key", message, headers={"WWW-Authenticate": "Bearer"})
            await self.form(failure, None)(scope, receive, send)
            return
        await self.app(scope, receive, send)
