"""The text of request bodies: its depth, against walking the parsed value, and its encoding."""

import json
import random

import pytest

from llava.serve.middleware.json_text import check_depth, check_headers, check_text
from llava.serve.protocol.errors import RequestFailure


def slow_depth(value) -> int:
    if isinstance(value, (list, dict)):
        return 1 + max((slow_depth(part) for part in (value.values() if isinstance(value, dict) else value)), default=0)
    return 0


def test_check_depth_agrees_with_walking_the_parsed_value() -> None:
    rng = random.Random(1)

    def value(depth: int):
        kind = rng.randrange(5 if depth < 6 else 2)
        if kind < 2:
            return rng.choice([1, None, 'a"[', "\\", '\\"{', "]]]", "\\\\[", "é{"])
        parts = [value(depth + 1) for _ in range(rng.randrange(3))]
        return parts if kind == 2 else {rng.choice(['k"', "[", "\\"]) + str(n): part for n, part in enumerate(parts)}

    for _ in range(500):
        sample = value(0)
        body, depth = json.dumps(sample).encode(), slow_depth(sample)
        check_depth(body, depth)
        if depth:
            with pytest.raises(RequestFailure):
                check_depth(body, depth - 1)


DEEP = '{"a": ' + "[" * 20 + "]" * 20 + "}"
OTHER_ENCODINGS = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")


@pytest.mark.parametrize("encoding", OTHER_ENCODINGS)
@pytest.mark.parametrize("text", [DEEP, '{"prompt": "w5"}', "[1]"])
def test_check_text_refuses_other_encodings_that_parsers_take(encoding, text) -> None:
    body = text.encode(encoding)
    assert json.loads(body) == json.loads(text), "Python's parser reads it"
    with pytest.raises(RequestFailure, match="UTF-8") as raised:
        check_text(body, 16)
    assert raised.value.status == 400


@pytest.mark.parametrize(
    "body", [b'"\xff"', b'"\xc0\xaf"', b'"\xed\xa0\x80"', b'"\xe2\x82', b'"\xf5\x80\x80\x80"', b'{"a": "\x00"}']
)
def test_check_text_refuses_bytes_that_are_not_utf_8(body) -> None:
    with pytest.raises(RequestFailure, match="UTF-8"):
        check_text(body, 16)


@pytest.mark.parametrize("text", ['{"a": "é{日本\U0001f600"}', r'{"a": "\ud800"}', "", "\ufeff{}"])
def test_check_text_passes_utf_8(text) -> None:
    check_text(text.encode(), 16)


def test_check_text_with_a_byte_order_mark_keeps_the_depth_limit() -> None:
    with pytest.raises(RequestFailure, match="nested"):
        check_text(b"\xef\xbb\xbf" + DEEP.encode(), 16)


@pytest.mark.parametrize(
    "headers",
    [
        {"content-encoding": "gzip"},
        {"content-encoding": "Deflate"},
        {"content-encoding": "br, gzip"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-type": 'application/json;charset="UTF-7"'},
        {"content-type": "application/json; x=y; charset=iso-8859-1"},
    ],
)
def test_check_headers_refuses_compressed_and_otherwise_encoded_bodies(headers) -> None:
    with pytest.raises(RequestFailure) as raised:
        check_headers(headers)
    assert raised.value.status == 415


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-encoding": "identity"},
        {"content-type": "application/json; charset=UTF-8"},
        {"content-type": 'application/json; charset="utf-8"'},
        {"content-type": "application/json"},
    ],
)
def test_check_headers_passes_plain_bodies(headers) -> None:
    check_headers(headers)
