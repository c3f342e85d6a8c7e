"""Makes the HTTP clients for requests between controller, workers, the OpenAI-style API and the programs that ask."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator

import httpx

from llava.errors import OptionError

CONNECT_TIMEOUT_S = 5.0
HEADERS = {"User-Agent": "LLaVA Client"}


def checked_url(url: str, flag: str) -> str:
    """Return a server's URL without a slash at its end. Raises OptionError, which names ``flag``, for what is none."""
    try:
        parsed = httpx.URL(url)
        host, port = parsed.host, parsed.port  # the host is decoded here
    except (httpx.InvalidURL, ValueError) as error:
        raise OptionError(f"{flag} is {url!r} ({error}); expected http://HOST:PORT") from error
    if parsed.scheme not in ("http", "https") or not host or (port is not None and not 0 < port < 65536):
        raise OptionError(f"{flag} is {url!r}; expected http://HOST:PORT")
    return url.rstrip("/")


class BodyOnce(AsyncIterable[bytes]):
    """The body of a request, which is forgotten once it was sent: httpx keeps a request as long as its reply."""

    def __init__(self, body: bytes) -> None:
        self.headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        self._unsent = [body]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Give the body, the first time only."""
        while self._unsent:
            yield self._unsent.pop()


def new_client() -> httpx.AsyncClient:
    """Make an asynchronous client: connects directly (no proxy), follows no redirect, opens any number of connections.

    Each request sets its own timeout; httpx's default of 5 s holds where it does not.
    """
    return httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_connections=None))


def new_sync_client(timeout_s: float) -> httpx.Client:
    """Make a blocking client: connects directly (no proxy) and follows no redirect.

    timeout_s: maximum wait for the next piece of a reply, in seconds.
    """
    timeout = httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
    return httpx.Client(trust_env=False, timeout=timeout, headers=HEADERS)
