"""Fetching of image URLs: public addresses only, at every hop, at the IP that was checked; within size and time."""

import gzip
import shutil
import socket
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anyio
import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llava.errors import ImageError
from llava.serve.openai_compat.safe_fetch import MAX_REDIRECTS, PublicFetcher, resolve

pytestmark = pytest.mark.anyio
IMAGE = b"image" * 10
LIMIT = 1000  # bytes


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers)))
        kind, _, rest = self.path[1:].partition("/")
        status, body, headers = 200, IMAGE, {"Set-Cookie": "a=b; Path=/"}
        if kind == "to":
            status, body, headers["Location"] = 302, b"", rest
        elif kind == "round":
            status, body, headers["Location"] = 307, b"", f"/round/{int(rest) + 1}"
        elif kind == "missing":
            status = 404
        elif kind == "packed":
            body, headers["Content-Encoding"] = gzip.compress(b"0" * 1_000_000), "gzip"
        elif kind == "large":
            body = b"0" * (LIMIT + 1)
        elif kind == "slow":
            self.server.leave.wait(30)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if kind == "endless":
            while not self.server.leave.is_set():
                try:
                    self.wfile.write(b"0" * 100)
                except OSError:
                    return
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def serve(host: str, port: int = 0, tls: ssl.SSLContext | None = None) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer((host, port), Handler)
    server.seen, server.leave, server.daemon_threads = [], threading.Event(), True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()  # seconds between its looks
    return server


@pytest.fixture
def net():
    """Two servers on one port: 127.0.0.1 stands for the public internet, 127.0.0.2 for a private network."""
    public = serve("127.0.0.1")
    private = serve("127.0.0.2", public.server_address[1])

    class Net:
        port = public.server_address[1]
        seen, private_seen = public.seen, private.seen
        names = {  # noqa: RUF012
            "images.example": ["127.0.0.1"],
            "private.example": ["127.0.0.2"],
            "both.example": ["127.0.0.1", "127.0.0.2"],
            "nobody.example": [],
        }
        resolved: list[str] = []  # noqa: RUF012

        async def resolve(self, host: str, port: int) -> list[str]:
            self.resolved.append(host)
            addresses = self.names.get(host, [host])
            if host == "rebinding.example":  # public when it is checked, private ever after
                addresses = ["127.0.0.1"] if self.resolved.count(host) == 1 else ["127.0.0.2"]
            return addresses

        def fetcher(self, timeout_s: float = 20, **changes) -> PublicFetcher:
            is_allowed = lambda address: address == "127.0.0.1"  # noqa: E731
            return PublicFetcher(LIMIT, timeout_s, resolve=self.resolve, is_allowed=is_allowed, **changes)

        async def get(self, path: str, host: str = "images.example", **changes) -> bytes:
            return await self.fetcher(**changes).fetch(f"http://{host}:{self.port}/{path}")

    net = Net()
    net.resolved = []
    yield net
    for server in (public, private):
        server.leave.set()
        server.shutdown()
        server.server_close()


async def test_fetch_connects_to_the_checked_ip_under_the_hosts_name(net) -> None:
    assert await net.get("image") == IMAGE
    assert net.resolved == ["images.example"], "looked up once"
    ((path, headers),) = net.seen
    assert path == "/image" and headers["Host"] == f"images.example:{net.port}"


async def test_fetch_connects_to_the_ip_that_was_checked_where_the_name_changes(net) -> None:
    assert await net.get("image", host="rebinding.example") == IMAGE
    assert net.resolved == ["rebinding.example"] and not net.private_seen
    with pytest.raises(ImageError, match="not on the public internet"):
        await net.get("image", host="rebinding.example")


@pytest.mark.parametrize("target", ["/image", "http://images.example:{port}/image"])
async def test_fetch_public_redirect_is_followed_without_cookies(net, target) -> None:
    assert await net.get(f"to/{target.format(port=net.port)}") == IMAGE
    assert all("Cookie" not in headers for _, headers in net.seen)


PRIVATE = ["http://private.example:{port}/", "http://127.0.0.2:{port}/", "http://10.0.0.1/", "http://both.example/"]


@pytest.mark.parametrize("target", [*PRIVATE, "//private.example:{port}/"])
async def test_fetch_redirect_to_a_private_host_is_refused_without_a_request(net, target) -> None:
    with pytest.raises(ImageError, match="not on the public internet"):
        await net.get(f"to/{target.format(port=net.port)}")
    assert not net.private_seen


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://images.example/", "http://user:word@images.example/"])
async def test_fetch_redirect_to_another_kind_of_url_is_refused(net, target) -> None:
    with pytest.raises(ImageError, match="expected http"):
        await net.get(f"to/{target}")


async def test_fetch_private_host_is_refused_without_a_request(net) -> None:
    for host in ("private.example", "both.example", "127.0.0.2", "nobody.example"):
        with pytest.raises(ImageError, match="not on the public internet"):
            await net.get("secret", host=host)
    assert not net.private_seen and not net.seen


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("round/0", f"more than {MAX_REDIRECTS} times"),
        ("large", "more than 1,000 bytes"),
        ("endless", "more than 1,000 bytes"),
        ("packed", "compressed"),
        ("missing", "status 404"),
    ],
)
async def test_fetch_bad_reply_is_an_image_error(net, path, words) -> None:
    with pytest.raises(ImageError, match=words):
        await net.get(path)
    assert len(net.seen) <= MAX_REDIRECTS + 1


async def test_slow_name_servers_delay_no_connection_of_the_server_itself(monkeypatch) -> None:
    """The API looks up its controller's name in the event loop's threads, of which there are few."""
    look_up, release, names = socket.getaddrinfo, threading.Event(), 0

    def slow(host, *args, **options):
        if host == "slow.example":
            release.wait(60)
            raise OSError("no such name")
        return look_up(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    fetcher = PublicFetcher(LIMIT, 0.3)
    try:
        async with anyio.create_task_group() as group:

            async def fetch() -> None:
                nonlocal names
                with pytest.raises(ImageError, match="did not arrive within"):
                    await fetcher.fetch("http://slow.example/image")
                names += 1

            for _ in range(50):
                group.start_soon(fetch)
            with anyio.fail_after(30):
                await anyio.sleep(0.1)
                assert await anyio.getaddrinfo("localhost", 80)
        assert names == 50
    finally:
        release.set()
    assert "127.0.0.1" in await resolve("127.0.0.1", 80)


async def test_fetch_slow_reply_is_an_image_error(net) -> None:
    began = time.monotonic()
    with pytest.raises(ImageError, match=r"within 0\.5 s"):
        await net.get("slow", timeout_s=0.5)
    assert time.monotonic() - began < 20


async def test_fetch_unreachable_host_is_an_image_error(net) -> None:
    with pytest.raises(ImageError, match="cannot be fetched: ConnectError"):
        await net.fetcher().fetch("http://127.0.0.1:9/")


@pytest.mark.parametrize(
    "url", ["http://", "http:///a", "http://[::1", "ftp://a.example/", "http://a b/", "http://a@b/", "http://\0/"]
)
async def test_fetch_not_a_url_is_an_image_error(net, url) -> None:
    with pytest.raises(ImageError):
        await net.fetcher().fetch(url)


async def test_fetch_too_long_url_is_an_image_error(net) -> None:
    with pytest.raises(ImageError, match="2,000 characters"):
        await net.fetcher().fetch("http://a.example/" + "a" * 2000)


async def test_fetch_certificate_is_checked_against_the_name_not_the_ip(net, tmp_path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=images.example".split()
    command += ["-addext", "subjectAltName=DNS:images.example", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = serve("127.0.0.1", tls=context)
    net.names["other.example"] = ["127.0.0.1"]
    trusting = ssl.create_default_context(cafile=str(certificate))
    fetcher = net.fetcher(client=httpx.AsyncClient(verify=trusting, trust_env=False))
    port = server.server_address[1]
    assert await fetcher.fetch(f"https://images.example:{port}/image") == IMAGE
    with pytest.raises(ImageError, match="cannot be fetched"):
        await fetcher.fetch(f"https://other.example:{port}/image")
    server.shutdown()
    server.server_close()


HOSTS = st.one_of(
    st.text(alphabet="ab0.-_:/@?#[]%\\ \t\r\n\0é。．xn--ü🐈\u200d1", max_size=30),
    st.text(alphabet="xn-a0.", max_size=25),
    st.integers(-5, 10**20).map(lambda port: f"a.example:{port}/"),
    st.text(max_size=20),
)


async def streamed(data: bytes):
    yield data


def fetcher_of(answer) -> PublicFetcher:
    """A fetcher whose every request ``answer`` answers, and to which every host is public."""

    async def resolve(host: str, port: int) -> list[str]:
        assert host and 0 < port < 65536
        return ["192.0.2.1"]

    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return PublicFetcher(LIMIT, 10, client, resolve, lambda address: True)


@settings(deadline=None, max_examples=500)
@given(scheme=st.sampled_from(["http://", "https://", "//", ""]), host=HOSTS)
@example(scheme="http://", host="xn--n-00.x-/")
@example(scheme="http://", host="a.example:99999/")
@example(scheme="//", host="[")
def test_fetch_of_any_text_is_an_image_or_a_user_error(scheme, host) -> None:
    """As the URL, and as where another one redirects to."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path != "/start":
            return httpx.Response(200, content=streamed(IMAGE))
        try:
            return httpx.Response(302, headers={"Location": scheme + host})
        except UnicodeEncodeError:  # a header cannot carry it
            return httpx.Response(302, headers={"Location": "//["})

    async def fetch(url: str) -> bytes:
        try:
            return await fetcher_of(answer).fetch(url)
        except ImageError:
            return IMAGE

    for url in (scheme + host, "http://a.example/start"):
        assert anyio.run(fetch, url) == IMAGE


@pytest.mark.parametrize("host", ["xn--n-00.x-", "a.example:99999", "[::g]", "a b", "", ":80", "\udcff"])
async def test_resolved_hosts_are_plain(host) -> None:
    with pytest.raises(ImageError):
        await PublicFetcher(LIMIT, 10).fetch(f"http://{host}/a.png")
