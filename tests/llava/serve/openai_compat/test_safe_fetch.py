"""Pictures from addresses: public ones only, at every hop, by the number that was checked; no more than allowed."""

import gzip
import shutil
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from llava.errors import ImageError
from llava.serve.openai_compat.public_ip import is_public
from llava.serve.openai_compat.safe_fetch import MAX_REDIRECTS, PublicFetcher

pytestmark = pytest.mark.anyio
PICTURE = b"picture" * 10
LIMIT = 1000  # bytes


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers)))
        kind, _, rest = self.path[1:].partition("/")
        status, body, headers = 200, PICTURE, {"Set-Cookie": "a=b; Path=/"}
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
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture
def net():
    """Two servers on one port: 127.0.0.1 plays the public internet, 127.0.0.2 the inside."""
    public = serve("127.0.0.1")
    inside = serve("127.0.0.2", public.server_address[1])

    class Net:
        port = public.server_address[1]
        seen, inner = public.seen, inside.seen
        names = {  # noqa: RUF012
            "pictures.example": ["127.0.0.1"],
            "inside.example": ["127.0.0.2"],
            "both.example": ["127.0.0.1", "127.0.0.2"],
            "nobody.example": [],
        }
        asked: list[str] = []  # noqa: RUF012

        async def resolve(self, host: str, port: int) -> list[str]:
            self.asked.append(host)
            numbers = self.names.get(host, [host])
            if host == "rebinding.example":  # public when it is checked, inside ever after
                numbers = ["127.0.0.1"] if self.asked.count(host) == 1 else ["127.0.0.2"]
            return numbers

        def fetcher(self, timeout_s: float = 20, **changes) -> PublicFetcher:
            allowed = lambda number: number == "127.0.0.1"  # noqa: E731
            return PublicFetcher(LIMIT, timeout_s, resolve=self.resolve, is_allowed=allowed, **changes)

        async def get(self, path: str, host: str = "pictures.example", **changes) -> bytes:
            return await self.fetcher(**changes).fetch(f"http://{host}:{self.port}/{path}")

    net = Net()
    net.asked = []
    yield net
    for server in (public, inside):
        server.leave.set()
        server.shutdown()
        server.server_close()


async def test_a_picture_comes_from_the_checked_number_under_the_hosts_name(net) -> None:
    assert await net.get("picture") == PICTURE
    assert net.asked == ["pictures.example"], "looked up once"
    ((path, headers),) = net.seen
    assert path == "/picture" and headers["Host"] == f"pictures.example:{net.port}"


async def test_a_name_that_changes_behind_the_check_changes_nothing(net) -> None:
    assert await net.get("picture", host="rebinding.example") == PICTURE
    assert net.asked == ["rebinding.example"] and not net.inner
    with pytest.raises(ImageError, match="not on the public internet"):
        await net.get("picture", host="rebinding.example")


async def test_redirects_are_followed_and_checked(net) -> None:
    for target in ("picture", "/picture", f"http://pictures.example:{net.port}/picture"):
        assert (
            await net.get(f"to/{target}" if target.startswith("http") else f"to/{'/' + target.strip('/')}") == PICTURE
        )
    inner = [f"http://inside.example:{net.port}/secret", f"http://127.0.0.2:{net.port}/secret", "http://10.0.0.1/"]
    for target in [*inner, f"http://both.example:{net.port}/secret", f"//inside.example:{net.port}/secret"]:
        with pytest.raises(ImageError, match="not on the public internet"):
            await net.get(f"to/{target}")
    for target in ("file:///etc/passwd", "ftp://pictures.example/", "http://user:word@pictures.example/"):
        with pytest.raises(ImageError, match="expected http"):
            await net.get(f"to/{target}")
    assert not net.inner, "nothing inside was asked"
    assert all("Cookie" not in headers for _, headers in net.seen)


async def test_what_is_inside_is_never_asked(net) -> None:
    for host in ("inside.example", "both.example", "127.0.0.2", "nobody.example"):
        with pytest.raises(ImageError, match="not on the public internet"):
            await net.get("secret", host=host)
    assert not net.inner and not net.seen


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
async def test_what_is_not_taken(net, path, words) -> None:
    with pytest.raises(ImageError, match=words):
        await net.get(path)
    assert len(net.seen) <= MAX_REDIRECTS + 1


async def test_time_is_limited_as_a_whole(net) -> None:
    began = time.monotonic()
    with pytest.raises(ImageError, match=r"within 0\.5 s"):
        await net.get("slow", timeout_s=0.5)
    assert time.monotonic() - began < 20


async def test_nobody_there(net) -> None:
    with pytest.raises(ImageError, match="cannot be fetched: ConnectError"):
        await net.fetcher().fetch("http://127.0.0.1:9/")


@pytest.mark.parametrize(
    "address", ["http://", "http:///a", "http://[::1", "ftp://a.example/", "http://a b/", "http://a@b/", "http://\0/"]
)
async def test_no_addresses(net, address) -> None:
    with pytest.raises(ImageError):
        await net.fetcher().fetch(address)
    with pytest.raises(ImageError, match="2,000 characters"):
        await net.fetcher().fetch("http://a.example/" + "a" * 2000)


async def test_certificates_are_checked_against_the_name_not_the_number(net, tmp_path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=pictures.example".split()
    command += ["-addext", "subjectAltName=DNS:pictures.example", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = serve("127.0.0.1", tls=context)
    net.names["other.example"] = ["127.0.0.1"]
    trusting = ssl.create_default_context(cafile=str(certificate))
    fetcher = net.fetcher(client=httpx.AsyncClient(verify=trusting, trust_env=False))
    port = server.server_address[1]
    assert await fetcher.fetch(f"https://pictures.example:{port}/picture") == PICTURE
    with pytest.raises(ImageError, match="cannot be fetched"):
        await fetcher.fetch(f"https://other.example:{port}/picture")
    server.shutdown()
    server.server_close()


PUBLIC = ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1"]
NOT_PUBLIC = """
    0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 127.0.0.1 127.255.255.254 169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.1
    192.168.1.1 192.0.2.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 233.252.0.1 239.1.1.1 240.0.0.1 255.255.255.255
    :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 64:ff9b::7f00:1 2002:7f00:1::
    2002:a00:1:: 2001:0:7f00:1::1 fe80::1 fe80::1%eth0 fc00::1 fd00:ec2::254 fec0::1 ff02::1 ff0e::1 2001:db8::1 100::1
    name 1.1.1
""".split()


@pytest.mark.parametrize("number", PUBLIC)
def test_public_numbers(number) -> None:
    assert is_public(number)


@pytest.mark.parametrize("number", NOT_PUBLIC)
def test_numbers_that_are_not_public(number) -> None:
    assert not is_public(number)
