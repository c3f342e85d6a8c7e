"""Bad and hostile requests to the OpenAI-style API: status and message in OpenAI's format; the next one is answered."""

import base64
import json

import httpx
import pytest

from llava.serve.middleware.body_limits import BodyLimits
from llava.serve.openai_api import ChatApi, create_app
from llava.serve.openai_compat.controller_client import ControllerClient
from llava.serve.openai_compat.image_urls import ImageUrls
from llava.serve.openai_compat.safe_fetch import PublicFetcher
from llava.serve.protocol.http_client import new_client

JSON = {"Content-Type": "application/json"}


def images(*urls: str) -> dict:
    return {"messages": [{"role": "user", "content": [image(url) for url in urls]}]}


def image(url: object) -> dict:
    return {"type": "image_url", "image_url": {"url": url}}


def data(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def content(*parts) -> dict:
    return {"messages": [{"role": "user", "content": list(parts)}]}


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
NOT_PUBLIC = "not on the public internet"
# name: (fields in addition to model and messages, status, words of the message)
FIELDS = {
    "no messages": ({"messages": None}, 400, ["messages"]),
    "empty messages": ({"messages": []}, 400, ["messages"]),
    "messages a text": ({"messages": "w5"}, 400, ["messages", "list"]),
    "a message a text": ({"messages": ["w5"]}, 400, ["messages.0"]),
    "no role": ({"messages": [{"content": "w5"}]}, 400, ["role"]),
    "an unknown role": ({"messages": [{"role": "robot", "content": "w5"}]}, 400, ["messages.0.role", "user"]),
    "a tool's role": ({"messages": [{"role": "tool", "content": "w5"}]}, 400, ["messages.0", "tool", "calls none"]),
    "no content": ({"messages": [{"role": "user"}]}, 400, ["messages.0", "empty"]),
    "null content": ({"messages": [{"role": "user", "content": None}]}, 400, ["messages.0", "empty"]),
    "empty content": ({"messages": [{"role": "user", "content": ""}]}, 400, ["messages.0", "empty"]),
    "an assistant alone": ({"messages": [{"role": "assistant", "content": "w5"}]}, 400, ["role 'user'"]),
    "an image tag in a text": (content({"type": "text", "text": "<image>"}), 400, ["<image>", "image_url"]),
    "half a surrogate pair": (content({"type": "text", "text": "\ud800"}), 400, ["text", "surrogate"]),
    "half a pair in a message": ({"messages": [{"role": "user", "content": "\udfff"}]}, 400, ["surrogate"]),
    "half a pair in a type": (content({"type": "\ud800", "text": ""}), 400, ["type"]),
    "half a pair in a stop": ({"stop": ["a\ud800"]}, 400, ["stop", "surrogate"]),
    "half a pair in a URL": (images("\ud800"), 400, []),
    "half a pair in a data URL": (images("data:image/png;base64,\ud800"), 400, []),
    "half a pair in a host": (images("http://\ud800/"), 400, []),
    "half a pair in a budget": ({"latency_budget": "\ud800"}, 400, []),
    "half a pair in the model": ({"model": "\ud800"}, 400, ["model"]),
    "a part of an unknown type": (content({"type": "input_audio"}), 400, ["input_audio", "image_url"]),
    "a part without a type": (content({"text": "w5"}), 400, ["type"]),
    "an image without a URL": (content({"type": "image_url"}), 400, ["image_url"]),
    "an image's URL in the wrong field": (content({"type": "image_url", "image_url": "data:,"}), 400, []),
    "a null URL": (content(image(None)), 400, ["url"]),
    "a URL that is a number": (content(image(7)), 400, ["url"]),
    "an empty URL": (images(""), 400, ["url"]),
    "a path": (images("/etc/passwd"), 400, ["/etc/passwd", "data:image"]),
    "a file": (images("file:///etc/passwd"), 400, ["data:image"]),
    "FTP": (images("ftp://a.example/b.png"), 400, ["data:image"]),
    "gopher": (images("gopher://127.0.0.1:6379/_FLUSHALL"), 400, ["data:image"]),
    "a script": (images("javascript:alert(1)"), 400, ["data:image"]),
    "data without base64": (images("data:image/png,abc"), 400, ["image 1", "base64"]),
    "data without a comma": (images("data:image/png;base64"), 400, ["image 1", "base64"]),
    "data that is a page": (images(data(b"<html></html>", "text/html")), 400, ["text/html", "image/png"]),
    "data of no type": (images("data:;base64,AAAA"), 400, ["image/png"]),
    "base64 that is none": (images("data:image/png;base64,!!!!"), 400, ["image 1", "base64"]),
    "base64 cut short": (images(data(b"abcd")[:-3]), 400, ["base64"]),
    "an empty file": (images("data:image/png;base64,"), 400, ["not an image"]),
    "SVG": (images(data(SVG, "image/svg+xml")), 400, ["not an image", "PNG"]),
    "noise": (images(data(b"noise" * 100)), 400, ["not an image"]),
    "too many images": (images(*["data:image/png;base64,AAAA"] * 9), 400, ["9 images", "8"]),
    "the second is bad": (images("data:image/png;base64,AAAA", "nothing"), 400, ["image 2"]),
    "this machine": (images("http://127.0.0.1:{port}/v1/models"), 400, ["image 1", NOT_PUBLIC]),
    "this machine by name": (images("http://localhost:{port}/health"), 400, [NOT_PUBLIC]),
    "this machine in short": (images("http://127.1:{port}/"), 400, [NOT_PUBLIC]),
    "this machine as one number": (images("http://2130706433:{port}/"), 400, [NOT_PUBLIC]),
    "this machine in hexadecimal": (images("http://0x7f000001:{port}/"), 400, [NOT_PUBLIC]),
    "this machine in octal": (images("http://0177.0.0.1:{port}/"), 400, ["image 1", "0177.0.0.1"]),
    "this machine in IPv6": (images("http://[::1]:{port}/"), 400, [NOT_PUBLIC]),
    "IPv4 within IPv6": (images("http://[::ffff:127.0.0.1]:{port}/"), 400, [NOT_PUBLIC]),
    "every address": (images("http://0.0.0.0:{port}/"), 400, [NOT_PUBLIC]),
    "a cloud's metadata": (images("http://169.254.169.254/latest/meta-data/"), 400, [NOT_PUBLIC]),
    "a cloud's metadata in IPv6": (images("http://[fd00:ec2::254]/latest/"), 400, [NOT_PUBLIC]),
    "a private network": (images("http://10.0.0.1/a.png"), 400, [NOT_PUBLIC]),
    "another one": (images("https://192.168.1.1/a.png"), 400, [NOT_PUBLIC]),
    "user and password": (images("http://a@127.0.0.1:{port}/"), 400, ["without user"]),
    "a host of nothing": (images("http:///a.png"), 400, ["image 1"]),
    "a host with a line break": (images("http://127.0.0.1\r\nX: y/"), 400, ["image 1"]),
    "punycode that is none": (images("http://xn--n-00.x-/a.png"), 400, ["image 1", "not a URL"]),
    "punycode of nothing": (images("http://xn--/a.png"), 400, ["image 1"]),
    "port 99999": (images("http://a.example:99999/a.png"), 400, ["image 1", "99999"]),
    "port 0": (images("http://a.example:0/a.png"), 400, ["image 1", "port 0"]),
    "a port of letters": (images("http://a.example:http/a.png"), 400, ["image 1"]),
    "a negative port": (images("http://a.example:-1/a.png"), 400, ["image 1"]),
    "a zone of IPv6": (images("http://[fe80::1%25eth0]/a.png"), 400, ["image 1"]),
    "IPv6 that is none": (images("http://[::g]/a.png"), 400, ["image 1"]),
    "IPv6 without its end": (images("http://[::1/a.png"), 400, ["image 1"]),
    "a space in the host": (images("http://a b.example/a.png"), 400, ["image 1"]),
    "a dot of another script": (images("http://127。0。0。1/a.png"), 400, ["image 1"]),
    "two dots": (images("http://a..example/a.png"), 400, ["image 1"]),
    "a label of 100 letters": (images("http://" + "a" * 100 + ".example/a.png"), 400, ["image 1"]),
    "a zero byte in the host": (images("http://a\0b/a.png"), 400, ["image 1"]),
    "a soft hyphen in the host": (images("http://\u00ad/a.png"), 400, ["image 1"]),
    "a long URL": (images("http://a.example/" + "a" * 3000), 400, ["2,000 characters"]),
    "no model": ({"model": None}, 400, ["model"]),
    "another model": ({"model": "other"}, 404, ["'other'", "tiny"]),
    "a path for a model": ({"model": "../../etc/passwd"}, 404, ["passwd"]),
    "a line break in the model": ({"model": "tiny\nINFO forged"}, 400, ["model"]),
    "a huge model name": ({"model": "m" * 1000}, 400, ["model", "300"]),
    "temperature text": ({"temperature": "hot"}, 400, ["temperature"]),
    "temperature 3": ({"temperature": 3}, 400, ["temperature", "2"]),
    "top_p 2": ({"top_p": 2}, 400, ["top_p"]),
    "no tokens": ({"max_tokens": 0}, 400, ["max_tokens"]),
    "two lengths": ({"max_tokens": 1, "max_completion_tokens": 2}, 400, ["max_tokens is 1"]),
    "five stops": ({"stop": ["a"] * 5}, 400, ["stop", "4"]),
    "a long stop": ({"stop": "w" * 300}, 400, ["stop", "200"]),
    "a seed of letters": ({"seed": "one"}, 400, ["seed"]),
    "a huge seed": ({"seed": 2**63}, 400, ["seed"]),
    "two answers": ({"n": 2}, 400, ["n is not supported"]),
    "tools": ({"tools": [{"type": "function"}]}, 400, ["tools"]),
    "JSON mode": ({"response_format": {"type": "json_object"}}, 400, ["response_format"]),
    "probabilities": ({"logprobs": True}, 400, ["logprobs"]),
    "a large penalty": ({"frequency_penalty": 2.5}, 400, ["frequency_penalty", "2"]),
    "a penalty that is text": ({"presence_penalty": "high"}, 400, ["presence_penalty", "number"]),
    "repetition without a penalty": ({"repetition_penalty": 0}, 400, ["repetition_penalty"]),
    "a negative top_k": ({"top_k": -2}, 400, ["top_k", "-1"]),
    "a fraction as top_k": ({"top_k": 1.5}, 400, ["top_k", "integer"]),
    "min_p 2": ({"min_p": 2}, 400, ["min_p", "1"]),
    "a minimum above the maximum": ({"min_tokens": 5, "max_tokens": 4}, 400, ["min_tokens is 5", "4"]),
    "a minimum above the server's maximum": ({"min_tokens": 9, "max_tokens": None}, 400, ["min_tokens is 9", "8"]),
    "ignore_eos a word": ({"ignore_eos": "maybe"}, 400, ["ignore_eos", "true or false"]),
    "biased tokens": ({"logit_bias": {"5": 10}}, 400, ["logit_bias"]),
    "the best of several": ({"best_of": 3}, 400, ["best_of"]),
    "tokens that end it": ({"stop_token_ids": [2]}, 400, ["stop_token_ids"]),
    "a grammar": ({"guided_json": {"type": "object"}}, 400, ["guided_json"]),
    "a misspelt field": ({"temprature": 0.5}, 400, ["temprature"]),
    "beam search": ({"use_beam_search": True}, 400, ["use_beam_search"]),
    "usage in every piece": (
        {"stream": True, "stream_options": {"continuous_usage_stats": True}},
        400,
        ["stream_options.continuous_usage_stats is not supported"],
    ),
    "unknown stream option": ({"stream": True, "stream_options": {"pace": 1}}, 400, ["stream_options.pace"]),
    "padding of a stream": ({"stream": True, "stream_options": {"include_obfuscation": True}}, 400, ["obfuscation"]),
    "a priority": ({"priority": 5}, 400, ["priority is not supported"]),
    "an id of its own": ({"request_id": "mine"}, 400, ["request_id is not supported"]),
    "stream options without a stream": ({"stream_options": {"include_usage": True}}, 400, ["stream is not true"]),
    "stream a word": ({"stream": "maybe"}, 400, ["stream"]),
    "a budget above 1": ({"latency_budget": 2}, 400, ["(0, 1]"]),
    "a budget list": ({"latency_budget": [0.5]}, 400, ["latency_budget"]),
    "image tokens 0": ({"image_tokens": 0}, 400, ["image_tokens is 0", "25%"]),
    "image tokens of 200 %": ({"image_tokens": "200%"}, 400, ["image_tokens", "200%"]),
    "image tokens a list": ({"image_tokens": ["25%"]}, 400, ["image_tokens"]),
    "image tokens true": ({"image_tokens": True}, 400, ["image_tokens"]),
    "image tokens as a budget pays, without one": ({"image_tokens": "auto"}, 400, ["no latency budget"]),
    "half a pair in image tokens": ({"image_tokens": "\ud800"}, 400, ["image_tokens"]),
    "an unknown selector": ({"token_selector": "best"}, 400, ["token_selector is 'best'", "divprune"]),
    "an unknown policy": ({"latency_budget_policy": "maybe"}, 400, ["strict"]),
    "a strict budget out of reach": ({"latency_budget": 0.1, "latency_budget_policy": "strict"}, 400, ["0.1", "0.5"]),
    "beyond the context": (content({"type": "text", "text": "w5 " * 400}), 400, ["tokens", "255"]),
    "deep": ({"metadata": {"a": [[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]}}, 400, ["nested"]),
}
# name: (bytes, headers, status, words)
RAW = {
    "nothing": (b"", JSON, 400, ["body"]),
    "broken JSON": (b'{"model": ', JSON, 400, ["not JSON"]),
    "a list": (b"[]", JSON, 400, ["object"]),
    "not UTF-8": (b'{"model": "\xff"}', JSON, 400, []),
    "a form": (b"model=tiny", {"Content-Type": "application/x-www-form-urlencoded"}, 400, ["application/json"]),
    "too large": (b'{"model": "' + b"w" * 150_000 + b'"}', JSON, 413, ["100,000 bytes"]),
    "deep lists": (b"[" * 15_000, JSON, 400, ["nested"]),
    "a number of 5000 digits": (b'{"model": "tiny", "seed": ' + b"9" * 5000 + b"}", JSON, 400, []),
}


@pytest.fixture(scope="module")
def api(served, listen):
    """The API with image URLs allowed, and small limits."""
    reader = ImageUrls(PublicFetcher(10_000, 10))
    controller = ControllerClient(served.controller.address, new_client())
    return listen(create_app(ChatApi(controller, reader, limits=BodyLimits(max_bytes=100_000))))


@pytest.fixture(scope="module")
def client(api):
    with httpx.Client(base_url=api.address, trust_env=False, timeout=600) as client:
        yield client


GOOD = {"model": "tiny", "messages": [{"role": "user", "content": "w5"}], "max_tokens": 1}


def check(client, reply, status, words) -> None:
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"
    assert reply.headers["X-Request-Id"] and len(error["message"]) < 3000 and "Traceback" not in error["message"]
    for word in words:
        assert word in error["message"]
    assert client.post("/v1/chat/completions", json=GOOD).status_code == 200


@pytest.mark.parametrize("name", FIELDS)
def test_bad_field_is_refused(client, api, name) -> None:
    fields, status, words = FIELDS[name]
    body = json.dumps({**GOOD, **fields}).replace("{port}", api.address.rpartition(":")[2])
    check(client, client.post("/v1/chat/completions", content=body.encode(), headers=JSON), status, words)


@pytest.mark.parametrize("name", RAW)
def test_bad_body_is_refused(client, name) -> None:
    body, headers, status, words = RAW[name]
    check(client, client.post("/v1/chat/completions", content=body, headers=headers), status, words)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/models", 405),
        ("GET", "/v1/models/..%2f..%2fetc", 404),
        ("GET", "/v1/models/other", 404),
        ("GET", "/etc/passwd", 404),
        ("POST", "/v1/completions", 404),
    ],
)
def test_unknown_path_or_method_is_refused(client, method, path, status) -> None:
    check(client, client.request(method, path), status, [])


@pytest.mark.parametrize("text", ["-1", "fast", "nan"])
def test_bad_budget_header_is_refused(client, text) -> None:
    check(client, client.post("/v1/chat/completions", json=GOOD, headers={"x-slo-ttft-ms": text}), 400, [text])


def test_budget_in_body_and_header_is_refused(client) -> None:
    reply = client.post("/v1/chat/completions", json={**GOOD, "latency_budget": 0.5}, headers={"x-slo-ttft-ms": "9"})
    check(client, reply, 400, ["latency_budget", "header"])


@pytest.mark.parametrize("image_url", ["https://a.example/b.png", "HTTP://a.example/b.png"])
def test_image_url_without_the_servers_flag_is_refused(served, image_url) -> None:
    url = f"{served.api.address}/v1/chat/completions"
    reply = httpx.post(url, json={**GOOD, **images(image_url)}, trust_env=False, timeout=600)
    assert reply.status_code == 400 and "--allow-image-urls" in reply.json()["error"]["message"]


def test_redirect_to_a_private_address_is_refused(served, listen) -> None:
    """Through the API: a host that counts as public redirects to one that does not."""
    from fastapi import FastAPI
    from fastapi.responses import RedirectResponse

    requested = []
    outside = FastAPI()
    outside.get("/{path:path}")(lambda path: (requested.append(path), RedirectResponse("http://127.0.0.2:1/secret"))[1])
    address = listen(outside).address
    fetcher = PublicFetcher(10_000, 10, is_allowed=lambda number: number == "127.0.0.1")
    controller = ControllerClient(served.controller.address, new_client())
    api = listen(create_app(ChatApi(controller, ImageUrls(fetcher))))
    url = f"{api.address}/v1/chat/completions"
    reply = httpx.post(url, json={**GOOD, **images(f"{address}/a.png")}, trust_env=False, timeout=600)
    assert requested == ["a.png"] and reply.status_code == 400 and NOT_PUBLIC in reply.json()["error"]["message"]


FINE = {
    "nulls": dict.fromkeys(("temperature", "top_p", "stop", "seed", "stream", "stream_options", "tools", "n")),
    "harmless values": {"n": 1, "logprobs": False, "tools": [], "frequency_penalty": 0, "user": "u", "store": False},
    "no priority": {"priority": 0, "request_id": None},
    "control characters": {"messages": [{"role": "user", "content": "w5 \u0000\u0007\u001b[2J"}]},
    "a detail": content({**image("{image}"), "image_url": {"url": "{image}", "detail": "high"}}),
    "more tokens than there are": {"max_tokens": 10**9},
    "no length": {"max_tokens": None},
    "neutral settings": {"top_k": -1, "min_p": 0, "repetition_penalty": 1, "min_tokens": 0, "ignore_eos": False},
    "settings as floats": {"top_k": 5.0, "min_tokens": 1.0, "presence_penalty": -2},
    "null settings": dict.fromkeys(("top_k", "min_p", "repetition_penalty", "min_tokens", "ignore_eos", "unknown")),
    "an empty answer": {
        "messages": [{"role": "user", "content": "w5"}, {"role": "assistant"}, {"role": "user", "content": "w5"}]
    },
    "an assistant first": {"messages": [{"role": "assistant", "content": "w5"}, {"role": "user", "content": "w5"}]},
    "an assistant last": {"messages": [{"role": "user", "content": "w5"}, {"role": "assistant", "content": "w6"}]},
    "an empty system message": {"messages": [{"role": "system", "content": ""}, {"role": "user", "content": "w5"}]},
    "four stops": {"stop": ["a", "b", "c", ""]},
}


@pytest.mark.parametrize("name", FINE)
def test_unusual_request_is_answered(client, name, image_text) -> None:
    body = json.dumps({**GOOD, **FINE[name]}).replace("{image}", f"data:image/png;base64,{image_text}")
    reply = client.post("/v1/chat/completions", content=body.encode(), headers=JSON)
    assert reply.status_code == 200, reply.text
    assert 1 <= reply.json()["usage"]["completion_tokens"] <= 8
