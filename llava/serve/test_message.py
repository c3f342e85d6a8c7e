"""Sends one message to a served model and prints the answer: ``python -m llava.serve.test_message``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import httpx

from llava.conversation import conv_templates
from llava.errors import LlavaError, OptionError
from llava.plugins import hooks, merged
from llava.program import run_program
from llava.serve.protocol.framing import iter_chunks
from llava.serve.protocol.http_client import new_sync_client
from llava.serve.protocol.schemas import OK

TIMEOUT_S = 120.0  # maximum wait for the next piece of the answer


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line (upstream's flags, the prompt template, and the plug-ins' flags)."""
    parser = argparse.ArgumentParser(prog="python -m llava.serve.test_message", description=__doc__)
    parser.add_argument(
        "--controller-address", metavar="URL", default="http://localhost:21001", help="address of the controller"
    )
    parser.add_argument("--worker-address", metavar="URL", help="worker to ask directly, without the controller")
    parser.add_argument("--model-name", help="model to ask; by default the first one that is served")
    parser.add_argument("--message", default="Tell me a story with more than 1000 words.", help="text of the message")
    parser.add_argument("--max-new-tokens", type=int, default=32, help="maximum length of the answer, in tokens")
    parser.add_argument("--conv-mode", default="v1", choices=sorted(conv_templates), help="prompt template")
    hooks().add_arguments(parser=parser, program="test_message")
    return parser.parse_args(arguments)


def request_body(args: argparse.Namespace) -> dict[str, Any]:
    """Return the request that the flags describe, without its model.

    A plug-in's request field is filled by the plug-in's flag of the same name.
    """
    conversation = conv_templates[args.conv_mode].copy()
    conversation.append_message(conversation.roles[0], args.message)
    conversation.append_message(conversation.roles[1], None)
    extra = {name: getattr(args, name, None) for name in merged(hooks().request_fields())}
    return {
        "prompt": conversation.get_prompt(),
        "temperature": 0.7,
        "max_new_tokens": args.max_new_tokens,
        "stop": conversation.sep2 or conversation.sep,
        **{name: value for name, value in extra.items() if value is not None},
    }


def find_worker(client: httpx.Client, args: argparse.Namespace) -> tuple[str, str]:
    """Return the worker's address and the model to ask. Raises OptionError where there is none."""
    if args.worker_address:
        worker = args.worker_address.rstrip("/")
        status = _post(client, f"{worker}/worker_get_status").json()
        return worker, args.model_name or status["model_names"][0]
    controller = args.controller_address.rstrip("/")
    _post(client, f"{controller}/refresh_all_workers", accepted=(403,))  # of other machines it takes no such request
    models = _post(client, f"{controller}/list_models").json()["models"]
    print(f"Models: {models}")
    if not models:
        raise OptionError(f"the controller at {controller} knows no worker; start one")
    name = args.model_name or models[0]
    worker = _post(client, f"{controller}/get_worker_address", {"model": name}).json()["address"]
    if not worker:
        raise OptionError(f"--model-name is {name!r}, which no worker serves; there are: {', '.join(models)}")
    print(f"worker_addr: {worker}")
    return worker, name


def _post(client: httpx.Client, url: str, body: Any = None, accepted: Sequence[int] = ()) -> httpx.Response:
    reply = client.post(url, json=body or {})
    if reply.status_code not in accepted:
        reply.raise_for_status()
    return reply


def ask(client: httpx.Client, worker: str, body: dict[str, Any]) -> Iterator[str]:
    """Yield the answer so far, each time it grows. Raises OptionError with the worker's message where it fails."""
    with client.stream("POST", f"{worker}/worker_generate_stream", json=body) as reply:
        for part in iter_chunks(reply.iter_bytes()):
            if part.get("error_code") != OK:
                raise OptionError(f"error {part.get('error_code')}: {part.get('text')}")
            yield part["text"][len(body["prompt"]) :]


def send_message(args: argparse.Namespace) -> None:
    """Send the message, and print the answer while it grows. Raises a ``LlavaError`` where no answer comes."""
    body = request_body(args)
    try:
        with new_sync_client(TIMEOUT_S) as client:
            worker, body["model"] = find_worker(client, args)
            print(body["prompt"], flush=True)
            answer = ""
            for answer in ask(client, worker, body):
                print(answer.replace("\n", " "), end="\r", flush=True)
            print(answer)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError) as error:
        raise LlavaError(f"{type(error).__name__}: {error}") from error


def main(arguments: list[str] | None = None) -> int:
    """Run the program; return the exit code, 2 for a user error."""
    args = parse_arguments(arguments)
    return run_program(lambda: send_message(args))


if __name__ == "__main__":
    raise SystemExit(main())
