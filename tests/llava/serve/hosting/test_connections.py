"""Connections at a real socket: slow heads, slow bodies, unread replies, too many of them."""

import logging
import resource
import threading
import time

import pytest
from fixtures.hosting import read

from llava.serve.hosting import connections
from llava.serve.hosting.connections import MIN_CONNECTIONS, affordable_connections
from llava.serve.middleware.body_limits import BodyLimits
from llava.serve.middleware.server_log import set_up_logging

HEAD = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize("begun", [b"G", HEAD, HEAD + b"X-A: b\r\n" * 50, b"POST /echo HTTP/1.1\r\nHost:"])
def test_head_that_never_ends_gets_a_408_and_is_counted_once(host, begun) -> None:
    hosted = host(head_timeout_s=0.2)
    reply = read(hosted.connect(begun))
    assert (
        reply.startswith(b"HTTP/1.1 408") and b'"reason":"timeout"' in reply and b"connection: close" in reply.lower()
    )
    assert hosted.counted("none") == {"other 408": 1}


def test_head_that_trickles_gets_a_408_at_its_deadline(host) -> None:
    hosted = host(head_timeout_s=0.5)
    connection = hosted.connect(HEAD)
    stop = threading.Event()

    def trickle() -> None:
        while not stop.wait(0.05):
            try:
                connection.sendall(b"X-A: b\r\n")
            except OSError:
                return

    thread = threading.Thread(target=trickle)
    thread.start()
    assert read(connection).startswith(b"HTTP/1.1 408")
    stop.set()
    thread.join()


def test_connection_without_a_byte_is_closed_and_not_counted(host) -> None:
    hosted = host(head_timeout_s=0.2)
    assert read(hosted.connect()) == b""
    assert hosted.counted("none") == {}


def test_second_head_of_a_connection_has_the_deadline_too(host) -> None:
    hosted = host(head_timeout_s=0.3)
    connection = hosted.connect(HEAD + b"\r\n")
    assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    connection.sendall(HEAD)
    assert b"HTTP/1.1 408" in read(connection)
    assert hosted.counted("/hello") == {"GET 200": 1} and hosted.counted("none") == {"other 408": 1}


def test_answer_may_take_longer_than_a_head(host) -> None:
    hosted = host(head_timeout_s=0.2)
    connection = hosted.connect(b"GET /slow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    time.sleep(0.6)
    hosted.release.set()
    assert b"slow" in read(connection)
    assert hosted.counted("none") == {}


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 1000\r\n", b"Transfer-Encoding: chunked\r\n"], ids=["length", "chunked"]
)
def test_body_that_trickles_gets_a_408_and_the_connection_ends(host, framing) -> None:
    hosted = host(BodyLimits(body_timeout_s=0.3), head_timeout_s=0.3)
    connection = hosted.connect(b"POST /echo HTTP/1.1\r\nHost: localhost\r\n" + framing + b"\r\n")
    ended = threading.Event()

    def trickle() -> None:
        while not ended.wait(0.05):
            try:
                connection.sendall(b"1\r\nx\r\n" if b"chunked" in framing else b"x")
            except OSError:
                return

    thread = threading.Thread(target=trickle)
    thread.start()
    reply = read(connection)  # to the end of the connection: it is not kept for the rest of the body
    ended.set()
    thread.join()
    assert reply.startswith(b"HTTP/1.1 408") and hosted.counted("/echo") == {"POST 408": 1}
    assert hosted.counted("none") == {}


@pytest.mark.parametrize(
    "sent",
    [b"nonsense\r\n\r\n", b"GET /hello HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"],
    ids=["words", "no host", "TLS"],
)
def test_bytes_that_are_no_request_get_a_400_and_are_counted_and_logged_once(host, sent, caplog) -> None:
    set_up_logging()
    hosted = host()
    reply = read(hosted.connect(sent))
    assert reply.startswith(b"HTTP/1.1 400") and b'"reason":"bad_request"' in reply
    assert hosted.counted("none") == {"other 400": 1}
    assert [record.name for record in caplog.records if record.levelno >= logging.WARNING] == [
        "llava.serve.middleware.stack"
    ]


def test_broken_chunk_ends_its_request_once(host) -> None:
    hosted = host()
    head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    read(hosted.connect(head + b"nonsense\r\n"))
    hosted.wait_until(lambda: hosted.counted("/echo"))
    assert hosted.counted("/echo") == {"POST 499": 1} and hosted.counted("none") == {}


def test_half_sent_requests_give_way_to_new_ones(host) -> None:
    hosted = host(max_connections=5, head_timeout_s=60)
    half_sent = [hosted.connect(HEAD) for _ in range(20)]
    assert b"200 OK" in hosted.ask("GET /health HTTP/1.1\r\nHost: localhost\r\n")
    assert len(hosted.server.server_state.connections) <= 5
    assert read(half_sent[0]) == b"", "the longest idle one was closed"


def test_connection_too_many_gets_a_503_where_all_others_are_answered(host) -> None:
    hosted = host(max_connections=4)
    slow = [hosted.connect(b"GET /slow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n") for _ in range(4)]
    hosted.wait_until(lambda: hosted.middleware.lifecycle.in_flight == 4)
    refused = read(hosted.connect(HEAD + b"\r\n"))
    assert refused.startswith(b"HTTP/1.1 503") and b"retry-after: 1" in refused.lower()
    hosted.release.set()
    assert all(b"slow" in read(connection) for connection in slow)


def test_reply_that_is_not_read_ends_and_frees_its_connection(host, monkeypatch) -> None:
    monkeypatch.setattr("llava.serve.hosting.server.UNREAD_SLACK_S", 0.2)
    hosted = host(BodyLimits(send_timeout_s=0.3))
    connection = hosted.connect(b"GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n")
    hosted.wait_until(lambda: hosted.counted("/big") and not hosted.server.server_state.connections)
    assert hosted.counted("/big") == {"GET 499": 1}
    connection.close()


@pytest.mark.parametrize(
    ("soft", "wanted", "expected"), [(10_000, 100, 100), (200, 1000, (200 - 20 - 24) // 2), (30, 1000, MIN_CONNECTIONS)]
)
def test_affordable_connections_leave_files_for_the_rest(monkeypatch, soft, wanted, expected) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (soft, soft))
    monkeypatch.setattr(connections.os, "listdir", lambda path: ["file"] * 20)
    assert affordable_connections(wanted) == expected
