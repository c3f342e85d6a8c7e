"""SSRF-safe fetch of URLs that clients give: public internet only, limited in size, time and redirects."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy

import anyio
import httpx

from llava.errors import ImageError
from llava.serve.openai_compat.public_ip import is_public

MAX_REDIRECTS = 3
MAX_URL_LENGTH = 2000  # characters
MAX_PORT = 65535
Resolve = Callable[[str, int], Awaitable[list[str]]]  # (host, port) -> IP addresses


# Their own threads: a name server may take its time, and the event loop's look up the controller's name.
_LOOKUPS = ThreadPoolExecutor(8, "lookups")


async def resolve(host: str, port: int) -> list[str]:
    """Look up the IP addresses of a host name, as DNS has it. Raises OSError where it has none."""
    look_up = functools.partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.wrap_future(_LOOKUPS.submit(look_up))
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def new_fetch_client() -> httpx.AsyncClient:
    """Make a client for untrusted hosts: no proxy (it would look names up again), no cookies, no connection reused.

    A connection goes to an IP address; another host name may resolve to the same one.
    """
    jar = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    return httpx.AsyncClient(trust_env=False, cookies=jar, limits=httpx.Limits(max_keepalive_connections=0))


@dataclass
class PublicFetcher:
    """Fetches files from the public internet.

    The host of every hop is resolved once, and all its IP addresses must be public; the connection goes to the address
    that was checked, under the host's name. ``resolve`` and ``is_allowed`` are for tests.
    """

    max_bytes: int
    timeout_s: float
    client: httpx.AsyncClient = field(default_factory=new_fetch_client)
    resolve: Resolve = resolve
    is_allowed: Callable[[str], bool] = is_public

    async def fetch(self, url: str) -> bytes:
        """Return the file at an http(s) URL. Raises ImageError: not public, too large, too slow, not found."""
        shown = url[:200]
        try:
            with anyio.fail_after(self.timeout_s):
                hop = checked_url(url)
                for _ in range(MAX_REDIRECTS + 1):
                    data, location = await self._hop(hop)
                    if data is not None:
                        return data
                    hop = checked_url(location, hop)
        except TimeoutError as error:
            raise ImageError(f"{shown!r} did not arrive within {self.timeout_s:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:  # httpx also parses where a reply redirects to
            raise ImageError(f"{shown!r} cannot be fetched: {type(error).__name__}") from error
        raise ImageError(f"{shown!r} redirects more than {MAX_REDIRECTS} times")

    async def _hop(self, url: httpx.URL) -> tuple[bytes | None, str]:
        """Request one URL; return the file, or None and where it redirects to, which may be relative."""
        address = await self._checked_ip(url)
        headers = {"Host": url.netloc.decode("ascii"), "Accept": "image/*", "Accept-Encoding": "identity"}
        request = self.client.build_request(
            "GET",
            url.copy_with(host=address),
            headers=headers,
            extensions={"sni_hostname": url.host},
            timeout=self.timeout_s,
        )
        reply = await self.client.send(request, stream=True, follow_redirects=False)
        try:
            if reply.has_redirect_location:
                return None, reply.headers["Location"]
            if reply.status_code != 200:
                raise ImageError(f"{str(url)[:200]!r} answered with status {reply.status_code}")
            return await self._read(reply, url), ""
        finally:
            await reply.aclose()

    async def _checked_ip(self, url: httpx.URL) -> str:
        """Resolve the host; return its first IP address. Raises ImageError unless all of them are allowed."""
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            addresses = await self.resolve(url.raw_host.decode("ascii"), port)
        except (OSError, ValueError) as error:
            raise ImageError(f"the host {url.host[:100]!r} is not known") from error
        if not addresses or not all(self.is_allowed(address) for address in addresses):
            raise ImageError(
                f"the host {url.host[:100]!r} is not on the public internet; images are fetched only from there"
            )
        return addresses[0]

    async def _read(self, reply: httpx.Response, url: httpx.URL) -> bytes:
        """Read the body as it is sent. Raises ImageError where it is compressed or too large."""
        if reply.headers.get("Content-Encoding", "identity") != "identity":
            raise ImageError(f"{str(url)[:200]!r} is sent compressed, which was not asked for")
        data = bytearray()
        async for piece in reply.aiter_raw():
            data += piece
            if len(data) > self.max_bytes:
                raise ImageError(f"{str(url)[:200]!r} has more than {self.max_bytes:,} bytes; give a smaller image")
        return bytes(data)


def checked_url(text: str, base: httpx.URL | None = None) -> httpx.URL:
    """Parse a URL, which may be relative to ``base``. Raises ImageError for what is not a plain http(s) URL."""
    shown = text[:200]
    if len(text) > MAX_URL_LENGTH:
        raise ImageError(f"the URL {shown!r}... has more than {MAX_URL_LENGTH:,} characters")
    try:
        url = httpx.URL(text) if base is None else base.join(text)
        host, port = url.host, url.port  # the host is decoded here
    except (httpx.InvalidURL, ValueError) as error:
        raise ImageError(f"{shown!r} is not a URL: {error}") from error
    if url.scheme not in ("http", "https") or not host or url.userinfo:
        raise ImageError(
            f"{shown!r} is not the URL of an image; expected http(s)://HOST/..., without user and password"
        )
    if port is not None and not 0 < port <= MAX_PORT:
        raise ImageError(f"{shown!r} has the port {port}; expected 1 to {MAX_PORT}")
    return url
