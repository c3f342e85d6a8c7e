"""Bad and hostile requests to a worker: the right status, a message that names the error, and the worker goes on."""

import base64
import io
import json
import random
import struct
import zlib

import pytest
from PIL import Image

from llava.serve.middleware.body_limits import BodyLimits
from llava.serve.worker.request_limits import RequestLimits

pytestmark = pytest.mark.anyio
LIMITS = BodyLimits(max_bytes=200_000, max_depth=8)
SIZES = RequestLimits(max_images=2, max_image_bytes=60_000, max_image_pixels=1_000_000, max_prompt_characters=5_000)


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def image_bytes(kind: str = "PNG", size=(8, 8), mode: str = "RGB", frames: int = 1) -> bytes:
    buffer = io.BytesIO()
    images = [Image.new(mode, size, shade * 40) for shade in range(frames)]
    more = {"save_all": True, "append_images": images[1:]} if frames > 1 else {}
    images[0].save(buffer, kind, **more)
    return buffer.getvalue()


def promising(width: int, height: int) -> bytes:
    """A tiny PNG whose header promises a huge image."""
    data = bytearray(image_bytes(mode="L", size=(1, 1)))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
NOISE = random.Random(0).randbytes(3000)


def noisy() -> bytes:
    buffer = io.BytesIO()
    Image.frombytes("L", (50, 60), NOISE).save(buffer, "PNG")
    return buffer.getvalue()


NOISY = noisy()
IMAGE, PNG = "<image>\nw5", encoded(image_bytes())
# name: (fields in addition to prompt, status, words of the message)
FIELDS = {
    "no prompt": ({"prompt": None}, 422, ["prompt"]),
    "empty prompt": ({"prompt": ""}, 422, ["prompt"]),
    "prompt a number": ({"prompt": 5}, 422, ["prompt", "a text"]),
    "prompt a list": ({"prompt": ["w5"]}, 422, ["prompt", "a text"]),
    "prompt an object": ({"prompt": {"text": "w5"}}, 422, ["prompt"]),
    "half a surrogate pair": ({"prompt": "\ud800"}, 422, ["prompt"]),
    "prompt too long": ({"prompt": "w5 " * 2000}, 400, ["6,000 characters", "5,000"]),
    "prompt beyond the context": ({"prompt": "w5 " * 256}, 400, ["257 tokens", "255"]),
    "images beyond the context": (
        {"prompt": "w5 " * 250 + "<image>" * 2, "images": [PNG] * 2},
        400,
        ["259"],
    ),
    "temperature text": ({"temperature": "hot"}, 422, ["temperature", "number"]),
    "temperature below 0": ({"temperature": -0.1}, 422, ["temperature", "0"]),
    "temperature huge": ({"temperature": 1e300}, 422, ["temperature", "100"]),
    "temperature null": ({"temperature": None}, 422, ["temperature"]),
    "temperature a list": ({"temperature": [0.5]}, 422, ["temperature"]),
    "top_p above 1": ({"top_p": 1.01}, 422, ["top_p", "1"]),
    "top_p below 0": ({"top_p": -1}, 422, ["top_p", "0"]),
    "top_p text": ({"top_p": "most"}, 422, ["top_p"]),
    "no tokens": ({"max_new_tokens": 0}, 422, ["max_new_tokens", "1"]),
    "fewer than no tokens": ({"max_new_tokens": -5}, 422, ["max_new_tokens"]),
    "half a token": ({"max_new_tokens": 1.5}, 422, ["max_new_tokens", "integer"]),
    "tokens as text": ({"max_new_tokens": "many"}, 422, ["max_new_tokens"]),
    "tokens null": ({"max_new_tokens": None}, 422, ["max_new_tokens"]),
    "stop a number": ({"stop": 5}, 422, ["stop"]),
    "stop of numbers": ({"stop": [1, 2]}, 422, ["stop"]),
    "too many stops": ({"stop": ["w"] * 9}, 400, ["stop", "9", "8"]),
    "a long stop": ({"stop": "w" * 201}, 400, ["stop", "200"]),
    "another model": ({"model": "other"}, 404, ["'other'", "tiny"]),
    "a path for a model": ({"model": "../../etc/passwd"}, 404, ["passwd", "tiny"]),
    "a control character in the model": ({"model": "tiny\u0000"}, 422, ["model"]),
    "a line break in the model": ({"model": "tiny\nINFO forged"}, 422, ["model"]),
    "an escape in the model": ({"model": "\u001b[31m"}, 422, ["model"]),
    "a huge model name": ({"model": "m" * 1000}, 422, ["model", "300"]),
    "model a list": ({"model": ["tiny"]}, 422, ["model"]),
    "budget 0": ({"latency_budget": 0}, 400, ["latency-budget", "(0, 1]"]),
    "budget above 1": ({"latency_budget": 1.5}, 400, ["1.5", "(0, 1]"]),
    "budget below 0": ({"latency_budget": -0.5}, 400, ["-0.5"]),
    "budget a word": ({"latency_budget": "fast"}, 400, ["'fast'"]),
    "budget not a number": ({"latency_budget": "nan"}, 400, ["'nan'"]),
    "budget of 120 %": ({"latency_budget": "120%"}, 400, ["120%"]),
    "budget true": ({"latency_budget": True}, 422, ["latency_budget"]),
    "budget a list": ({"latency_budget": [0.5]}, 422, ["latency_budget"]),
    "an unknown policy": ({"latency_budget_policy": "maybe"}, 422, ["latency_budget_policy", "strict"]),
    "a strict budget out of reach": ({"latency_budget": 0.1, "latency_budget_policy": "strict"}, 400, ["0.1", "0.5"]),
    "a tag without an image": ({"prompt": IMAGE}, 400, ["0 image", "1 <image>"]),
    "an image without a tag": ({"images": [PNG]}, 400, ["1 image", "0 <image>"]),
    "two tags and one image": ({"prompt": IMAGE * 2, "images": [PNG]}, 400, ["1 image", "2 <image>"]),
    "too many images": ({"prompt": "<image>" * 3, "images": [PNG] * 3}, 400, ["3 images", "2"]),
    "images a text": ({"prompt": IMAGE, "images": encoded(image_bytes())}, 422, ["images", "list"]),
    "an image null": ({"prompt": IMAGE, "images": [None]}, 422, ["images.0"]),
    "an image a number": ({"prompt": IMAGE, "images": [7]}, 422, ["images.0"]),
    "an image an address": ({"prompt": IMAGE, "images": ["http://169.254.169.254/latest"]}, 400, ["base64"]),
    "an image a file": ({"prompt": IMAGE, "images": ["file:///etc/passwd"]}, 400, ["base64"]),
    "an empty image": ({"prompt": IMAGE, "images": [""]}, 400, ["image 1", "not an image"]),
    "an image of letters": ({"prompt": IMAGE, "images": ["not base64!"]}, 400, ["image 1", "base64"]),
    "an image of other letters": ({"prompt": IMAGE, "images": ["bildä"]}, 400, ["base64"]),
    "base64 cut short": ({"prompt": IMAGE, "images": [encoded(image_bytes())[:-3]]}, 400, ["base64"]),
    "a image cut short": ({"prompt": IMAGE, "images": [encoded(NOISY[: len(NOISY) // 2])]}, 400, ["cut short"]),
    "noise for a image": ({"prompt": IMAGE, "images": [encoded(NOISE)]}, 400, ["not an image"]),
    "text for a image": ({"prompt": IMAGE, "images": [encoded(b"<html></html>")]}, 400, ["not an image"]),
    "SVG": ({"prompt": IMAGE, "images": [encoded(SVG)]}, 400, ["not an image", "PNG"]),
    "TIFF": ({"prompt": IMAGE, "images": [encoded(image_bytes("TIFF"))]}, 400, ["not an image", "PNG"]),
    "an EPS program": ({"prompt": IMAGE, "images": [encoded(image_bytes("EPS"))]}, 400, ["not an image"]),
    "an animated GIF": ({"prompt": IMAGE, "images": [encoded(image_bytes("GIF", frames=3))]}, 400, ["animation"]),
    "an animated WebP": ({"prompt": IMAGE, "images": [encoded(image_bytes("WEBP", frames=3))]}, 400, ["animation"]),
    "an animated PNG": ({"prompt": IMAGE, "images": [encoded(image_bytes("PNG", frames=3))]}, 400, ["animation"]),
    "a bomb": ({"prompt": IMAGE, "images": [encoded(promising(60_000, 60_000))]}, 400, ["too large", "1,000,000"]),
    "a small bomb": ({"prompt": IMAGE, "images": [encoded(image_bytes(size=(1001, 1000)))]}, 400, ["1,001,000"]),
    "a large file": ({"prompt": IMAGE, "images": [encoded(NOISE * 25)]}, 400, ["60,000 bytes"]),
    "the second of two": ({"prompt": IMAGE * 2, "images": [encoded(image_bytes()), encoded(NOISE)]}, 400, ["image 2"]),
}
# name: (bytes, headers, status, words)
JSON = {"Content-Type": "application/json"}
RAW = {
    "nothing": (b"", JSON, 422, ["body"]),
    "broken JSON": (b'{"prompt": ', JSON, 400, ["not JSON"]),
    "single quotes": (b"{'prompt': 'w5'}", JSON, 400, ["not JSON"]),
    "a trailing comma": (b'{"prompt": "w5",}', JSON, 400, ["not JSON"]),
    "two objects": (b'{"prompt": "w5"}{"prompt": "w5"}', JSON, 400, ["not JSON"]),
    "a list": (b"[]", JSON, 422, ["object"]),
    "a text": (b'"w5"', JSON, 422, ["object"]),
    "null": (b"null", JSON, 422, ["body"]),
    "not UTF-8": (b'{"prompt": "\xff\xfe"}', JSON, 400, []),
    "zero bytes": (b"\0" * 50, JSON, 400, []),
    "not a number": (b'{"prompt": "w5", "temperature": NaN}', JSON, (400, 422), []),
    "infinite": (b'{"prompt": "w5", "temperature": Infinity}', JSON, (400, 422), []),
    "infinite budget": (b'{"prompt": "w5", "latency_budget": 1e999}', JSON, (400, 422), []),
    "a number of 5000 digits": (b'{"prompt": "w5", "max_new_tokens": ' + b"9" * 5000 + b"}", JSON, (400, 422), []),
    "deep lists": (b"[" * 15_000, JSON, 400, ["nested", "8"]),
    "deep objects": (b'{"a":' * 9_000 + b"1" + b"}" * 9_000, JSON, 400, ["nested", "8"]),
    "nine deep": (b'{"prompt": "w5", "x": ' + b"[" * 8 + b"]" * 8 + b"}", JSON, 400, ["nested", "8"]),
    "many lists": (b"[" + b"[]," * 30_000 + b"[]]", JSON, 400, ["objects and lists"]),
    "many strings": (b'""' * 100_000, JSON, (400, 413), []),
    "too large": (b'{"prompt": "' + b"w" * 300_000 + b'"}', JSON, 413, ["200,000 bytes"]),
    "far too large": (b'{"prompt": "' + b"w" * 1_000_000 + b'"}', JSON, 413, ["200,000 bytes"]),
    "a form": (b"prompt=w5", {"Content-Type": "application/x-www-form-urlencoded"}, 422, ["application/json"]),
    "JSON that does not say so": (b'{"prompt": "w5"}', {"Content-Type": "text/plain"}, 422, ["application/json"]),
}


async def answers(client) -> bool:
    return (await client.ask(max_new_tokens=1))[-1]["error_code"] == 0


def check(reply, status, words) -> None:
    assert reply.status_code in (status if isinstance(status, tuple) else (status,)), reply.text
    failure = reply.json()
    assert failure["error_code"] == 1 and failure["request_id"] == reply.headers["X-Request-Id"]
    for word in words:
        assert word in failure["text"], failure["text"]
    assert len(failure["text"]) < 2000 and "Traceback" not in failure["text"]


@pytest.fixture
def worker(make_service, client_of):
    return client_of(make_service(limits=SIZES), LIMITS)


@pytest.mark.parametrize("name", FIELDS)
async def test_worker_bad_field_is_refused_and_named(worker, name):
    fields, status, words = FIELDS[name]
    body = json.dumps({"prompt": "w5", "max_new_tokens": 1, **fields}).encode()
    async with worker as client:
        check(await client.post("/worker_generate_stream", content=body, headers=JSON), status, words)
        assert await answers(client)


@pytest.mark.parametrize("name", RAW)
async def test_worker_bad_body_is_refused(worker, name):
    body, headers, status, words = RAW[name]
    async with worker as client:
        check(await client.post("/worker_generate_stream", content=body, headers=headers), status, words)
        assert await answers(client)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/worker_generate_stream", 405),
        ("POST", "/health", 405),
        ("GET", "/../etc/passwd", 404),
        ("GET", "/x", 404),
    ],
)
async def test_worker_unknown_path_or_method_is_refused(worker, method, path, status):
    async with worker as client:
        check(await client.request(method, path), status, [method])
        assert await answers(client)


GOOD = {
    "control characters": {"prompt": "w5 \u0000\u0007\u001b[2J w6"},
    "a image in lines": {"prompt": IMAGE, "images": [base64.encodebytes(image_bytes(size=(40, 40))).decode()]},
    "a grey image": {"prompt": IMAGE, "images": [encoded(image_bytes(mode="L"))]},
    "a still GIF": {"prompt": IMAGE, "images": [encoded(image_bytes("GIF"))]},
    "a see-through image": {"prompt": IMAGE, "images": [encoded(image_bytes(mode="RGBA"))]},
    "one pixel": {"prompt": IMAGE, "images": [encoded(image_bytes(size=(1, 1)))]},
    "a thin image": {"prompt": IMAGE, "images": [encoded(image_bytes(size=(1, 3000)))]},
    "unknown fields": {"prompt": "w5", "unheard": [1], "of": {"a": None}},
    "no images": {"prompt": "w5", "images": []},
    "empty stops": {"prompt": "w5", "stop": ["", ""]},
    "the longest prompt": {"prompt": "w5 " * 254},
    "more tokens than there are": {"prompt": "w5 " * 253, "max_new_tokens": 10**9},
    "eight deep": {"prompt": "w5", "x": [[[[[[[]]]]]]]},
}


@pytest.mark.parametrize("name", GOOD)
async def test_worker_unusual_request_is_answered(worker, name):
    fields = dict(GOOD[name])
    async with worker as client:
        last = (await client.ask(**{"max_new_tokens": 1, **fields}))[-1]
    assert last["error_code"] == 0 and last["text"].startswith(fields["prompt"])


@pytest.mark.parametrize("given", ["x" * 65, "a b", "a\tb", "é", ""])
async def test_worker_request_id_that_cannot_be_logged_is_replaced(worker, given):
    async with worker as client:
        reply = await client.get("/health", headers={"X-Request-Id": given.encode("latin-1")})
    assert reply.status_code == 200 and len(reply.headers["X-Request-Id"]) == 16
