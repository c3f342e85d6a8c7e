"""Registers a worker by hand, as one that does not do it by itself: ``python -m llava.serve.register_worker``."""

from __future__ import annotations

import argparse
import sys

import httpx

from llava.errors import LlavaError
from llava.serve.middleware import registration_token

TIMEOUT_S = 30.0  # the controller asks the worker for its status meanwhile


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Upstream's flags, and the token."""
    parser = argparse.ArgumentParser(prog="python -m llava.serve.register_worker", description=__doc__)
    parser.add_argument("--controller-address", required=True, help="such as http://localhost:21001")
    parser.add_argument("--worker-name", required=True, help="the worker's address, such as http://localhost:21002")
    parser.add_argument("--check-heart-beat", action="store_true", help="forget the worker once it is silent")
    registration_token.add_flag(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """The program; the exit code: 2 for what the user can mend."""
    args = parse_arguments(arguments)
    try:
        headers = registration_token.header(registration_token.token_of(args))
        address = args.controller_address.rstrip("/")
        body = {"worker_name": args.worker_name, "check_heart_beat": args.check_heart_beat, "worker_status": None}
        with httpx.Client(trust_env=False, timeout=TIMEOUT_S) as client:
            reply = client.post(f"{address}/register_worker", json=body, headers=headers)
    except LlavaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        print(f"error: the controller at {args.controller_address!r} cannot be reached: {error}", file=sys.stderr)
        return 2
    if reply.status_code != 200:
        print(f"error: the controller answered {reply.status_code}: {_said(reply)}", file=sys.stderr)
        return 2
    print(f"registered {args.worker_name}")
    return 0


def _said(reply: httpx.Response) -> str:
    try:
        return str(reply.json()["text"])
    except (ValueError, KeyError, TypeError):
        return reply.text[:300]


if __name__ == "__main__":
    raise SystemExit(main())
