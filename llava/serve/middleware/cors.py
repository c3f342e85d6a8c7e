"""Lets pages of other origins call a server from a browser (CORS): the flag, and the middleware."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import httpx
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from llava.errors import OptionError
from llava.serve.middleware.request_ids import HEADER

ALL = "*"


def add_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--cors-origins`` to a program's parser."""
    parser.add_argument(
        "--cors-origins",
        metavar="ORIGIN",
        nargs="+",
        default=[],
        help="origins whose pages may call this server from a browser, such as https://chat.example; * for all. By "
        "default browsers refuse such calls",
    )


def origins_of(args: argparse.Namespace) -> tuple[str, ...]:
    """Return the origins that ``--cors-origins`` names. Raises OptionError for what a browser sends for no page."""
    for origin in args.cors_origins:
        if origin != ALL and not _is_origin(origin):
            raise OptionError(f"--cors-origins has {origin!r}; expected http(s)://HOST or http(s)://HOST:PORT, or *")
    return tuple(args.cors_origins)


def _is_origin(text: str) -> bool:
    scheme, _, rest = text.partition("://")
    try:
        url = httpx.URL(text)
        plain = bool(url.host) and not url.userinfo and url.netloc.decode("ascii") == rest
    except (httpx.InvalidURL, ValueError):
        return False
    return scheme in ("http", "https") and plain


def add_cors(app: FastAPI, origins: Sequence[str]) -> None:
    """Add the middleware, outside of what refuses requests, so that pages can read refusals; none for no origins.

    It answers a browser's question before a call (preflight) itself.
    """
    if not origins:
        return
    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=[HEADER, "Retry-After"],
    )
