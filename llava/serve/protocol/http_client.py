"""Makes the HTTP clients for requests between controller, workers, the OpenAI-style API and the programs that ask."""

from __future__ import annotations

import httpx

from llava.errors import OptionError

CONNECT_TIMEOUT_S = 5.0
HEADERS = {"User-Agent": "LLaVA Client"}


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


def checked_server(address: str, flag: str) -> str:
    """Return a server's address that a flag gives, without a slash at its end.

    Raises OptionError for what no client can connect to, which would otherwise fail at each request.
    """
    try:
        url = httpx.URL(address)
        usable = url.scheme in ("http", "https") and bool(url.host) and (url.port is None or 0 < url.port < 65536)
    except (httpx.InvalidURL, ValueError) as error:
        raise OptionError(f"{flag} is {address!r}, which is not a URL: {error}") from error
    if not usable:
        raise OptionError(f"{flag} is {address!r}; expected http://HOST:PORT or https://HOST:PORT")
    return address.rstrip("/")
