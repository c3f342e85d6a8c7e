"""Fetches a file from the public internet for a stranger, and from nowhere else."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy

import anyio
import httpx

from llava.errors import ImageError
from llava.serve.openai_compat.public_ip import is_public

MAX_REDIRECTS = 3
MAX_ADDRESS = 2000  # characters
Resolve = Callable[[str, int], Awaitable[list[str]]]


async def resolve(host: str, port: int) -> list[str]:
    """The IP numbers of a name. Raises OSError where it has none."""
    found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def new_client() -> httpx.AsyncClient:
    """No proxy (it would look names up anew), no cookies, and no connection used twice: it may be another host's."""
    jar = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    return httpx.AsyncClient(trust_env=False, cookies=jar, limits=httpx.Limits(max_keepalive_connections=0))


@dataclass
class PublicFetcher:
    """Every hop is looked up once; all its numbers must be public; the connection goes to the number that was checked,
    under the host's name. ``resolve`` and ``allowed`` are for tests."""

    max_bytes: int
    timeout_s: float
    client: httpx.AsyncClient = field(default_factory=new_client)
    resolve: Resolve = resolve
    allowed: Callable[[str], bool] = is_public

    async def fetch(self, address: str) -> bytes:
        """The file at an http(s) address. Raises ImageError: not public, too large, too slow, not there."""
        shown = address[:200]
        try:
            with anyio.fail_after(self.timeout_s):
                for _ in range(MAX_REDIRECTS + 1):
                    data, address = await self._hop(checked_url(address))
                    if data is not None:
                        return data
        except TimeoutError as error:
            raise ImageError(f"{shown!r} did not arrive within {self.timeout_s:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ImageError(f"{shown!r} cannot be fetched: {type(error).__name__}") from error
        raise ImageError(f"{shown!r} leads on more than {MAX_REDIRECTS} times")

    async def _hop(self, url: httpx.URL) -> tuple[bytes | None, str]:
        """The file, or None and the address that it leads on to."""
        number = await self._number(url)
        headers = {"Host": url.netloc.decode("ascii"), "Accept": "image/*", "Accept-Encoding": "identity"}
        request = self.client.build_request(
            "GET",
            url.copy_with(host=number),
            headers=headers,
            extensions={"sni_hostname": url.host},
            timeout=self.timeout_s,
        )
        reply = await self.client.send(request, stream=True, follow_redirects=False)
        try:
            if reply.has_redirect_location:
                return None, str(url.join(reply.headers["Location"]))
            if reply.status_code != 200:
                raise ImageError(f"{str(url)[:200]!r} answered with status {reply.status_code}")
            return await self._read(reply, url), ""
        finally:
            await reply.aclose()

    async def _number(self, url: httpx.URL) -> str:
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            numbers = await self.resolve(url.host, port)
        except (OSError, UnicodeError) as error:
            raise ImageError(f"the host {url.host[:100]!r} is not known") from error
        if not numbers or not all(self.allowed(number) for number in numbers):
            raise ImageError(
                f"the host {url.host[:100]!r} is not on the public internet; pictures come only from there"
            )
        return numbers[0]

    async def _read(self, reply: httpx.Response, url: httpx.URL) -> bytes:
        """The body as it is sent, no larger than allowed."""
        if reply.headers.get("Content-Encoding", "identity") != "identity":
            raise ImageError(f"{str(url)[:200]!r} is sent packed, which was not asked for")
        data = bytearray()
        async for piece in reply.aiter_raw():
            data += piece
            if len(data) > self.max_bytes:
                raise ImageError(f"{str(url)[:200]!r} has more than {self.max_bytes:,} bytes; name a smaller picture")
        return bytes(data)


def checked_url(address: str) -> httpx.URL:
    """Raises ImageError for what is no plain http(s) address."""
    shown = address[:200]
    if len(address) > MAX_ADDRESS:
        raise ImageError(f"the address {shown!r}... has more than {MAX_ADDRESS:,} characters")
    try:
        url = httpx.URL(address)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ImageError(f"{shown!r} is no address: {error}") from error
    if url.scheme not in ("http", "https") or not url.host or url.userinfo:
        raise ImageError(
            f"{shown!r} is no address of a picture; expected http(s)://HOST/..., without user and password"
        )
    return url
