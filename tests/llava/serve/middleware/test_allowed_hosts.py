"""Which names a server answers to: those of this machine, and those that its operator allows."""

import socket

import httpx
import pytest

from llava.errors import OptionError
from llava.serve.middleware.allowed_hosts import AllowedHosts, allowed_names, host_of

pytestmark = pytest.mark.anyio
NAMES = allowed_names("10.0.0.5", ["models.example", "*.example.org"])


async def ok(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


async def status(headers: list[tuple[bytes, bytes]], names=NAMES, path: str = "/") -> int:
    """The status that a request with these headers gets."""
    sent: list[dict] = []

    async def send(message: dict) -> None:
        sent.append(message)

    await AllowedHosts(ok, names)({"type": "http", "path": path, "headers": headers}, None, send)
    return sent[0]["status"]


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:21001",
        "LOCALHOST.",
        "127.0.0.1:80",
        "[::1]:21001",
        "[::1]",
        "[0:0::1]:5",
        "10.0.0.5",
        "models.example:443",
        "Models.Example.",
        "a.example.org",
        "a.b.EXAMPLE.org:1",
    ],
)
async def test_name_of_this_server_is_answered(host) -> None:
    assert await status([(b"host", host.encode())]) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:21001",
        "example.org",
        "controller",
        "notexample.org",
        "10.0.0.6",
        "2130706433",
        "[::2]",
        "xn--lcalhost-0za.example",
    ],
)
async def test_name_of_another_server_is_refused(host) -> None:
    assert await status([(b"host", host.encode())]) == 421


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"host", b"")],
        [(b"host", b":80")],
        [(b"host", b"localhost"), (b"host", b"evil.example")],
        [(b"host", b"localhost@evil.example")],
        [(b"host", b"evil.example/localhost")],
        [(b"host", b"localhost, evil.example")],
        [(b"host", b"localhost:80:80")],
        [(b"host", b"[::1")],
        [(b"host", b"[localhost]")],
        [(b"host", b"::1")],
        [(b"host", b"\xff")],
    ],
)
async def test_host_header_that_is_missing_or_malformed_is_refused(headers) -> None:
    assert await status(headers) in (400, 421)


@pytest.mark.parametrize("target", ["http://evil.example/", "http://localhost/", "*"])
async def test_target_that_is_no_path_is_refused(target) -> None:
    assert await status([(b"host", b"localhost")], path=target) == 400


@pytest.mark.parametrize("names", [None, allowed_names("localhost", ["*"])])
async def test_server_without_names_or_with_a_star_answers_to_any(names) -> None:
    assert await status([(b"host", b"evil.example")], names) == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]"])
@pytest.mark.parametrize("asked", ["192.0.2.7:21001", "[2001:db8::1]:5", socket.gethostname(), "controller:21001"])
async def test_server_of_every_network_answers_to_addresses_and_names_of_its_network(host, asked) -> None:
    assert await status([(b"host", asked.encode())], allowed_names(host)) == 200
    for other in (b"evil.example", b"2130706433", b"192.0.2.7.evil.example"):
        assert await status([(b"host", other)], allowed_names(host)) == 421


@pytest.mark.parametrize("name", ["a b", "http://a.example", "a*.example", "*.*", "me@a.example"])
def test_allowed_names_that_no_host_has_are_user_errors(name) -> None:
    with pytest.raises(OptionError, match="--allowed-hosts"):
        allowed_names("localhost", [name])


@pytest.mark.parametrize(
    ("header", "host"),
    [(" A.example.:80 ", "a.example"), ("[::0001]:1", "::1"), ("a.example:x", None), ("[::1]x", None), ("", None)],
)
def test_host_of_header(header, host) -> None:
    assert host_of(header) == host


async def test_refusal_names_the_host_and_the_flag() -> None:
    transport = httpx.ASGITransport(AllowedHosts(ok, NAMES))
    async with httpx.AsyncClient(transport=transport, base_url="http://evil.example") as client:
        reply = await client.get("/")
    assert reply.status_code == 421 and reply.json()["reason"] == "wrong_host"
    assert "'evil.example'" in reply.json()["text"] and "--allowed-hosts" in reply.json()["text"]
