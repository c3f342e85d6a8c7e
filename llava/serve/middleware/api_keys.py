"""API keys of the OpenAI-style server: where they are read from, and the ASGI middleware that checks them."""

from __future__ import annotations

import argparse
import os

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from llava.errors import OptionError
from llava.serve.middleware import registration_token
from llava.serve.protocol.errors import ErrorFormat, RequestFailure, refuse

VARIABLE = "LLAVA_API_KEYS"


def add_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--api-key-file``. No flag takes a key itself, because other users can list a process's flags."""
    parser.add_argument(
        "--api-key-file",
        metavar="FILE",
        help="file with an API key on each line (# begins a comment); more are read from the variable "
        f"{VARIABLE}, separated by commas. Without any key, every client is served",
    )


def keys_of(args: argparse.Namespace) -> tuple[str, ...]:
    """Read the keys of the environment and of ``--api-key-file``.

    Raises OptionError for a file that cannot be read or holds no key, and for a key that a header cannot carry.
    """
    keys = [key.strip() for key in os.environ.get(VARIABLE, "").split(",")]
    if args.api_key_file is not None:
        keys += _of_file(args.api_key_file)
    keys = [key for key in keys if key]
    for number, key in enumerate(keys, start=1):
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise OptionError(f"API key {number} has characters that a header cannot carry; use printable ASCII")
    return tuple(keys)


def _of_file(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            keys = [line.partition("#")[0].strip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"--api-key-file {path!r} cannot be read: {error}") from error
    if not any(keys):
        raise OptionError(f"--api-key-file {path!r} holds no key; write one on each line")
    return keys


class ApiKeys:
    """ASGI middleware that refuses a request without a valid key before its body is read.

    Without ``keys``, and for ``open_paths``, every request passes. ``error_format`` makes the refusal.
    """

    def __init__(
        self, app: ASGIApp, keys: tuple[str, ...], error_format: ErrorFormat, open_paths: tuple[str, ...] = ()
    ) -> None:
        self.app = app
        self.keys = keys
        self.error_format = error_format
        self.open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request: refuse it with 401, or pass it on."""
        guarded = scope["type"] == "http" and self.keys and scope["path"] not in self.open_paths
        shown = Headers(scope=scope).get("Authorization") if guarded else None
        if guarded and not any(registration_token.fits(key, shown) for key in self.keys):
            message = "the API key is missing or wrong; send the header Authorization: Bearer KEY"
            failure = RequestFailure(401, "invalid_api_key", message, headers={"WWW-Authenticate": "Bearer"})
            await refuse(failure, self.error_format, scope, receive, send)
            return
        await self.app(scope, receive, send)
