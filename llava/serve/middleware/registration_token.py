"""The secret that workers show to a controller."""

from __future__ import annotations

import argparse
import hmac
import os

from llava.errors import OptionError

VARIABLE = "LLAVA_REGISTRATION_TOKEN"
SCHEME = "Bearer "


def add_flag(parser: argparse.ArgumentParser) -> None:
    """``--registration-token``."""
    parser.add_argument(
        "--registration-token",
        help=f"secret that controller and workers share; also read from ${VARIABLE}, which other users cannot list",
    )


def token_of(args: argparse.Namespace) -> str | None:
    """The flag's, else the environment's, else none. Raises OptionError for one that no header can carry."""
    token = args.registration_token or os.environ.get(VARIABLE) or None
    if token is not None and not (token.isascii() and token.isprintable() and token == token.strip()):
        raise OptionError("the registration token has characters that a header cannot carry; use printable ASCII")
    return token


def header(token: str | None) -> dict[str, str]:
    """What a worker sends."""
    return {} if token is None else {"Authorization": SCHEME + token}


def fits(token: str | None, authorization: str | None) -> bool:
    """Whether a request's header shows the token, compared in constant time; always, where there is no token."""
    return token is None or hmac.compare_digest((SCHEME + token).encode(), (authorization or "").encode())
