"""Limits of request bodies and reply pieces, on a small application; their flags."""

import argparse
import asyncio
import json

import pytest

from llava.errors import OptionError
from llava.flags import add_dataclass_flags, from_flags
from llava.serve.middleware import body_limits
from llava.serve.middleware.body_limits import MIB, BodyLimits, LimitedBodies, UnreadAnswer

pytestmark = pytest.mark.anyio
LIMITS = BodyLimits(max_bytes=100, max_depth=4)


async def echo(scope, receive, send) -> None:
    """Reply with the body of the request."""
    message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": message["body"]})


class Exchange:
    """One ASGI request: the messages that the client sends, then silence; what the application sends back."""

    def __init__(self, *pieces: bytes, ends: bool = True) -> None:
        last = len(pieces) - 1
        self.incoming = [
            {"type": "http.request", "body": piece, "more_body": not ends or index < last}
            for index, piece in enumerate(pieces)
        ]
        self.sent: list[dict] = []
        self.headers: list[tuple[bytes, bytes]] = []

    async def receive(self) -> dict:
        if not self.incoming:
            await asyncio.Event().wait()
        return self.incoming.pop(0)

    async def send(self, message: dict) -> None:
        self.sent.append(message)

    async def run(self, app, limits: BodyLimits = LIMITS) -> "Exchange":
        scope = {"type": "http", "path": "/", "headers": self.headers}
        await LimitedBodies(app, limits)(scope, self.receive, self.send)
        return self

    @property
    def status(self) -> int:
        return self.sent[0]["status"]

    @property
    def body(self) -> bytes:
        return self.sent[1]["body"]


async def test_bodies_that_never_end_are_bounded_in_sum(monkeypatch) -> None:
    monkeypatch.setattr(body_limits, "ARRIVING_AT_ONCE", 2)
    limited = LimitedBodies(echo, BodyLimits(max_bytes=100, body_timeout_s=60))
    slow = [Exchange(b"x" * 90, ends=False) for _ in range(2)]
    scope = {"type": "http", "path": "/", "headers": []}
    arriving = [asyncio.create_task(limited(scope, one.receive, one.send)) for one in slow]
    await asyncio.sleep(0.05)
    refused, small = Exchange(b"x" * 30), Exchange(b"x" * 20)
    for one in (refused, small):
        await limited(scope, one.receive, one.send)
    assert (refused.status, small.status) == (503, 200)
    assert (b"retry-after", b"1") in refused.sent[0]["headers"]
    for task in arriving:
        task.cancel()
    await asyncio.gather(*arriving, return_exceptions=True)
    again = Exchange(b"x" * 90, b"x" * 10)
    await limited(scope, again.receive, again.send)
    assert again.status == 200, "what has ended counts no more"


async def test_body_of_a_streamed_path_is_not_read() -> None:
    sent = [b"x" * 90, b"x" * 90]
    exchange = Exchange(*sent)

    async def pieces(scope, receive, send) -> None:
        assert [(await receive())["body"] for _ in sent] == sent

    limited = LimitedBodies(pieces, LIMITS, streamed=("/upload",))
    await limited({"type": "http", "path": "/upload", "headers": []}, exchange.receive, exchange.send)


async def test_body_within_the_limits_arrives_complete() -> None:
    exchange = await Exchange(b'{"a": ', b"[1, 2]}").run(echo)
    assert exchange.status == 200 and exchange.body == b'{"a": [1, 2]}'


async def test_body_above_the_limit_is_refused_after_it_was_read() -> None:
    exchange = await Exchange(b"x" * 60, b"x" * 60).run(echo)
    assert exchange.status == 413 and not exchange.incoming
    assert json.loads(exchange.body)["reason"] == "too_large"


async def test_body_far_above_the_limit_is_refused_before_it_was_read() -> None:
    exchange = await Exchange(*[b"x" * 250] * 4).run(echo)
    assert exchange.status == 413 and len(exchange.incoming) == 2


async def test_body_nested_too_deeply_is_refused() -> None:
    exchange = await Exchange(b"[" * 5 + b"]" * 5).run(echo)
    assert exchange.status == 400 and "nested more than 4 deep" in json.loads(exchange.body)["text"]


async def test_body_brackets_inside_strings_do_not_count() -> None:
    body = b'["[[[[[[[[", "\\"[[[[["]'
    assert (await Exchange(body).run(echo)).body == body


async def test_body_that_never_arrives_times_out() -> None:
    exchange = await Exchange(b"{", ends=False).run(echo, BodyLimits(body_timeout_s=0.05))
    assert exchange.status == 408 and "0.05 s" in json.loads(exchange.body)["text"]


async def test_client_that_disconnects_before_its_body_gets_no_reply() -> None:
    exchange = Exchange()
    exchange.incoming = [{"type": "http.disconnect"}]
    assert not (await exchange.run(echo)).sent


async def test_reply_that_is_not_read_raises() -> None:
    async def never(message: dict) -> None:
        await asyncio.Event().wait()

    exchange = Exchange(b"{}")
    exchange.send = never
    with pytest.raises(UnreadAnswer, match=r"0\.05 s"):
        await exchange.run(echo, BodyLimits(send_timeout_s=0.05))


def parse(*flags: str) -> BodyLimits:
    parser = argparse.ArgumentParser()
    add_dataclass_flags(parser, BodyLimits)
    return from_flags(BodyLimits, parser.parse_args(flags))


def test_flags_without_any_are_the_defaults() -> None:
    assert parse() == BodyLimits(32 * MIB, 16, 30.0, 60.0)


def test_flags_set_every_limit() -> None:
    flags = "--max-body-mib 0.5 --max-json-depth 3 --body-timeout 1.5 --send-timeout 2"
    assert parse(*flags.split()) == BodyLimits(MIB // 2, 3, 1.5, 2.0)


@pytest.mark.parametrize("flag", ["--max-body-mib", "--max-json-depth", "--body-timeout", "--send-timeout"])
@pytest.mark.parametrize("value", ["0", "-1"])
def test_flag_not_above_zero_is_a_user_error_that_names_it(flag: str, value: str) -> None:
    with pytest.raises(OptionError, match=rf"{flag} is {value}; expected a number above 0"):
        parse(flag, value)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_max_body_mib_not_finite_is_a_user_error(value: str) -> None:
    with pytest.raises(OptionError, match=rf"--max-body-mib is {value}; expected a finite number"):
        parse("--max-body-mib", value)


def test_max_body_mib_not_a_number_is_a_user_error(capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse("--max-body-mib", "much")
    assert "--max-body-mib: invalid float value: 'much'" in capsys.readouterr().err
