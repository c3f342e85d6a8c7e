"""Shared secret that a worker shows to a controller: flag, environment variable, header, check."""

from __future__ import annotations

import argparse
import hmac
import os

from llava.errors import OptionError

VARIABLE = "LLAVA_REGISTRATION_TOKEN"
SCHEME = "Bearer "


def add_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--registration-token`` to a program's parser."""
    parser.add_argument(
        "--registration-token",
        metavar="SECRET",
        help=f"secret that controller and workers share; without the flag the variable {VARIABLE} is read, which other "
        "users of the machine cannot list",
    )


def token_of(args: argparse.Namespace) -> str | None:
    """Return the token of the flag, else of the environment, else None.

    Raises OptionError for a token that a header cannot carry.
    """
    token = args.registration_token or os.environ.get(VARIABLE) or None
    if token is not None and not (token.isascii() and token.isprintable() and token == token.strip()):
        raise OptionError("the registration token has characters that a header cannot carry; use printable ASCII")
    return token


def header(token: str | None) -> dict[str, str]:
    """Return the header that carries the token; empty where there is none."""
    return {} if token is None else {"Authorization": SCHEME + token}


def fits(token: str | None, authorization: str | None) -> bool:
    """Return whether an ``Authorization`` header carries the token, compared in constant time; True without a token.

    The scheme is of any case, as HTTP has it.
    """
    if token is None:
        return True
    scheme, _, shown = (authorization or "").partition(" ")
    same = hmac.compare_digest(token.encode(), shown.strip(" ").encode())
    return same and scheme.lower() == SCHEME.strip().lower()
