"""Asks a judge model for marks, at any server that speaks OpenAI's chat protocol."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from llava.errors import DataError, OptionError

DEFAULT_ADDRESS = "https://api.openai.com/v1"
DEFAULT_MODEL = "gpt-4-0314"
TIMEOUT_S = 120  # of one reply
RETRIES = Retry(total=5, backoff_factor=1.0, status_forcelist=(429, 500, 502, 503, 504), allowed_methods=("POST",))
MAX_UNREADABLE = 3  # replies without marks before the judge is given up

T = TypeVar("T")


class Judge:
    """A judge model at the server ``OPENAI_BASE_URL``, with the key ``OPENAI_API_KEY`` where one is needed."""

    def __init__(self, model: str = DEFAULT_MODEL, max_tokens: int = 1024, retries: Retry = RETRIES) -> None:
        address = os.environ.get("OPENAI_BASE_URL") or DEFAULT_ADDRESS
        key = os.environ.get("OPENAI_API_KEY")
        if key is None and address == DEFAULT_ADDRESS:
            raise OptionError("OPENAI_API_KEY is not set; set it, or name another server with OPENAI_BASE_URL")
        self.address, self.model, self.max_tokens = address.rstrip("/"), model, max_tokens
        self.session = requests.Session()
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, HTTPAdapter(max_retries=retries))
        if key:
            self.session.headers["Authorization"] = f"Bearer {key}"

    def ask(self, system: str, content: str) -> str:
        """Return one reply. Raises ``OptionError`` where the server gives none."""
        body = {
            "model": self.model,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": content}],
            "temperature": 0.2,
            "max_tokens": self.max_tokens,
        }
        try:
            response = self.session.post(f"{self.address}/chat/completions", json=body, timeout=TIMEOUT_S)
            if not response.ok:
                refusal = f"{response.status_code}, {response.text[:200]}"
                raise OptionError(f"the judge at {self.address} refuses: {refusal}")
            reply: str = response.json()["choices"][0]["message"]["content"]
        except (requests.RequestException, KeyError, IndexError, TypeError) as error:
            raise OptionError(f"the judge at {self.address} (OPENAI_BASE_URL) gives no reply: {error}") from error
        return reply

    def mark(self, system: str, content: str, read: Callable[[str], T | None]) -> tuple[str, T]:
        """Return a reply and its marks as ``read`` finds them; ask again where ``read`` returns None.

        Raises ``DataError`` after ``MAX_UNREADABLE`` replies without marks.
        """
        reply = ""
        for _ in range(MAX_UNREADABLE):
            reply = self.ask(system, content)
            marks = read(reply)
            if marks is not None:
                return reply, marks
        raise DataError(f"{self.model} gives no marks in {MAX_UNREADABLE} replies, the last is {reply[:100]!r}")
