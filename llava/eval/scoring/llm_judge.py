"""Asks a model, such as a judge for its marks, at any server that speaks OpenAI's chat protocol."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from llava.errors import DataError, OptionError
from llava.files.fields import required_field, shown

DEFAULT_ADDRESS = "https://api.openai.com/v1"
DEFAULT_MODEL = "gpt-4-0314"
TIMEOUT_S = 120  # of one reply
RETRY_STATUSES = (429, 500, 502, 503, 504)
MAX_TRIES = 5  # after the first
PAUSE_S = 1.0  # before a second try; it doubles with each further one
MAX_CONNECTIONS = 32  # that are kept open
MAX_UNREADABLE = 3  # replies without marks before the judge is given up

T = TypeVar("T")


class Judge:
    """A model at the server ``OPENAI_BASE_URL``, with the key ``OPENAI_API_KEY`` where one is needed.

    max_tokens: of a reply. pause_s: seconds before a refused request is sent again; it doubles with each further try.
    temperature: None leaves it to the server.
    """

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        max_tokens: int = 1024,
        pause_s: float = PAUSE_S,
        temperature: float | None = 0.2,
    ) -> None:
        address = os.environ.get("OPENAI_BASE_URL") or DEFAULT_ADDRESS
        key = os.environ.get("OPENAI_API_KEY")
        if key is None and address == DEFAULT_ADDRESS:
            raise OptionError("OPENAI_API_KEY is not set; set it, or name another server with OPENAI_BASE_URL")
        if max_tokens < 1:
            raise OptionError(f"--max-tokens is {max_tokens}; expected 1 or more")
        self.address, self.model = address.rstrip("/"), model
        self.settings: dict[str, Any] = {"max_tokens": max_tokens}
        if temperature is not None:
            self.settings["temperature"] = temperature
        self.session = requests.Session()
        retries = Retry(MAX_TRIES, backoff_factor=pause_s, status_forcelist=RETRY_STATUSES, allowed_methods=("POST",))
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, HTTPAdapter(pool_maxsize=MAX_CONNECTIONS, max_retries=retries))
        if key:
            self.session.headers["Authorization"] = f"Bearer {key}"

    def ask(self, system: str, content: str) -> str:
        """Return one reply. Raises ``OptionError`` where the server gives none, ``DataError`` where it has no text."""
        messages = [{"role": "system", "content": system}, {"role": "user", "content": content}]
        body = {"model": self.model, "messages": messages, **self.settings}
        try:
            response = self.session.post(f"{self.address}/chat/completions", json=body, timeout=TIMEOUT_S)
            if not response.ok:
                refusal = f"{response.status_code}, {response.text[:200]}"
                raise OptionError(f"the server at {self.address} refuses: {refusal}")
            reply = response.json()
        except (requests.RequestException, RecursionError, ValueError) as error:  # ValueError: an unusable key or reply
            raise OptionError(f"the server at {self.address} (OPENAI_BASE_URL) gives no reply: {error}") from error
        return _text_of(reply, f"the reply of the server at {self.address}")

    def mark(self, system: str, content: str, read: Callable[[str], T | None]) -> tuple[str, T]:
        """Return a reply and its marks as ``read`` finds them; ask again where ``read`` returns None.

        Raises ``DataError`` after ``MAX_UNREADABLE`` replies without marks.
        """
        last = ""
        for _ in range(MAX_UNREADABLE):
            try:
                reply = self.ask(system, content)
            except DataError as error:  # a reply without text: a refusal, or cut off while the model was reasoning
                last = str(error)
                continue
            marks = read(reply)
            if marks is not None:
                return reply, marks
            last = repr(reply[:100])
        raise DataError(f"{self.model} gives no marks in {MAX_UNREADABLE} replies, the last is {last}")


def judged_by(model: str, system: str, content: str) -> dict[str, str]:
    """Return the fields by which a record says how it was judged: the judge's name, and a hash of its prompt."""
    digest = hashlib.sha256(f"{system}\n{content}".encode()).hexdigest()
    return {"judge": model, "prompt_hash": digest[:16]}


def check_judged(record: Mapping[str, Any], expected: Mapping[str, str], path: Path) -> None:
    """Raise ``OptionError`` where a record of the file ``path`` was judged otherwise than ``expected`` says.

    A record of an earlier release does not say how it was judged, and is taken.
    """
    remedy = "remove it, or choose another --output"
    if record.get("judge", expected["judge"]) != expected["judge"]:
        raise OptionError(
            f"{path} holds marks of the judge {shown(record['judge'])}, --model is {expected['judge']!r}; {remedy}"
        )
    if record.get("prompt_hash", expected["prompt_hash"]) != expected["prompt_hash"]:
        raise OptionError(
            f"{path} holds marks that were given by other prompts, so by another rule, or of other texts; {remedy}"
        )


def _text_of(reply: object, where: str) -> str:
    """Return the text of a server's reply. Raises ``DataError``, which begins with ``where``, where it has none."""
    choices = required_field(reply, "choices", list, where)
    if not choices:
        raise DataError(f"{where} has no choices: {shown(reply)}")
    message = required_field(choices[0], "message", dict, f"{where}, the first choice")
    return required_field(message, "content", str, f"{where}, the first choice's message")
