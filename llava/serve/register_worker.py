"""Registers a worker that does not register itself: ``python -m llava.serve.register_worker``."""

from __future__ import annotations

import argparse

import httpx

from llava.errors import LlavaError, OptionError
from llava.program import run_program
from llava.serve.middleware import registration_token
from llava.serve.protocol.http_client import new_sync_client

TIMEOUT_S = 30.0  # the controller asks the worker for its status in this time


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line (upstream's flags, and the token)."""
    parser = argparse.ArgumentParser(prog="python -m llava.serve.register_worker", description=__doc__)
    parser.add_argument(
        "--controller-address", metavar="URL", required=True, help="the controller, such as http://localhost:21001"
    )
    parser.add_argument(
        "--worker-name", metavar="URL", required=True, help="the worker's address, such as http://localhost:21002"
    )
    parser.add_argument(
        "--check-heart-beat", action="store_true", help="forget the worker when it sends no more heartbeats"
    )
    registration_token.add_flag(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the program; return the exit code, 2 for a user error."""
    args = parse_arguments(arguments)
    return run_program(lambda: register(args))


def register(args: argparse.Namespace) -> None:
    """Register the worker. Raises a ``LlavaError`` where the controller refuses it or cannot be reached."""
    headers = registration_token.header(registration_token.token_of(args))
    url = args.controller_address.rstrip("/") + "/register_worker"
    body = {"worker_name": args.worker_name, "check_heart_beat": args.check_heart_beat, "worker_status": None}
    try:
        with new_sync_client(TIMEOUT_S) as client:
            reply = client.post(url, json=body, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise OptionError(f"the controller at {args.controller_address!r} cannot be reached: {error}") from error
    if reply.status_code != 200:
        raise LlavaError(f"the controller answered {reply.status_code}: {_message(reply)}")
    print(f"registered {args.worker_name}")


def _message(reply: httpx.Response) -> str:
    try:
        return str(reply.json()["text"])
    except (ValueError, KeyError, TypeError):
        return reply.text[:300]


if __name__ == "__main__":
    raise SystemExit(main())
