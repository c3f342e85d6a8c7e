"""Sends one message to a served model and prints the answer: ``python -m llava.serve.test_message``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

import httpx

from llava.conversation import conv_templates
from llava.errors import LlavaError, OptionError
from llava.serve.protocol.framing import objects
from llava.serve.protocol.schemas import OK

TIMEOUT = httpx.Timeout(120.0, connect=5.0)
HEADERS = {"User-Agent": "LLaVA Client"}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Upstream's flags, the template, and the budget."""
    parser = argparse.ArgumentParser(prog="python -m llava.serve.test_message", description=__doc__)
    parser.add_argument("--controller-address", default="http://localhost:21001", help="the controller")
    parser.add_argument("--worker-address", help="a worker to ask without the controller")
    parser.add_argument("--model-name", help="which model to ask; by default the first there is")
    parser.add_argument("--message", default="Tell me a story with more than 1000 words.", help="what to say")
    parser.add_argument("--max-new-tokens", type=int, default=32, help="longest answer, in tokens")
    parser.add_argument("--conv-mode", default="v1", choices=sorted(conv_templates), help="how the prompt is rendered")
    parser.add_argument("--latency-budget", help="share of the model's compute, where the worker takes budgets")
    return parser.parse_args(arguments)


def find_worker(client: httpx.Client, args: argparse.Namespace) -> tuple[str, str]:
    """Address and model to ask. Raises OptionError where there is none."""
    if args.worker_address:
        worker = args.worker_address.rstrip("/")
        status = _post(client, f"{worker}/worker_get_status").json()
        return worker, args.model_name or status["model_names"][0]
    controller = args.controller_address.rstrip("/")
    _post(client, f"{controller}/refresh_all_workers")
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


def _post(client: httpx.Client, address: str, body: Any = None) -> httpx.Response:
    reply = client.post(address, json=body or {})
    reply.raise_for_status()
    return reply


def ask(client: httpx.Client, worker: str, body: dict[str, Any]) -> Iterator[str]:
    """The answer so far, again and again. Raises OptionError with what the worker says where it fails."""
    with client.stream("POST", f"{worker}/worker_generate_stream", json=body) as reply:
        for part in objects(reply.iter_bytes()):
            if part.get("error_code") != OK:
                raise OptionError(f"error {part.get('error_code')}: {part.get('text')}")
            yield part["text"][len(body["prompt"]) :]


def main(arguments: list[str] | None = None) -> int:
    """The program; the exit code: 2 for what the user can mend."""
    args = parse_arguments(arguments)
    conversation = conv_templates[args.conv_mode].copy()
    conversation.append_message(conversation.roles[0], args.message)
    conversation.append_message(conversation.roles[1], None)
    body: dict[str, Any] = {
        "prompt": conversation.get_prompt(),
        "temperature": 0.7,
        "max_new_tokens": args.max_new_tokens,
        "stop": conversation.sep2 or conversation.sep,
    }
    if args.latency_budget is not None:
        body["latency_budget"] = args.latency_budget
    try:
        with httpx.Client(trust_env=False, timeout=TIMEOUT, headers=HEADERS) as client:
            worker, body["model"] = find_worker(client, args)
            print(body["prompt"], flush=True)
            answer = ""
            for answer in ask(client, worker, body):
                print(answer.replace("\n", " "), end="\r", flush=True)
            print(answer)
    except LlavaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError) as error:
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
