"""Messages that would fill a server's log are passed once a minute."""

import asyncio
import logging

from llava.serve.middleware.server_log import OncePerMinute, drop_second_line

ACCEPT = "socket.accept() out of system resource\nsocket: <...>"


def record(text: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord("asyncio", logging.ERROR, __file__, 1, text, arguments, None)


def test_repeated_message_is_passed_once_a_minute_with_the_number_of_the_others() -> None:
    now = [0.0]
    passes = OncePerMinute("socket.accept()", clock=lambda: now[0])
    assert passes.filter(record(ACCEPT))
    assert not any(passes.filter(record(ACCEPT)) for _ in range(50))
    now[0] = 61.0
    later = record(ACCEPT)
    assert passes.filter(later) and "50 times more" in later.getMessage()


def test_other_messages_are_passed_as_they_are() -> None:
    passes = OncePerMinute("socket.accept()", clock=lambda: 0.0)
    other = record("Task was destroyed: %s", "x")
    assert passes.filter(other) and passes.filter(other) and other.getMessage() == "Task was destroyed: x"


def test_uvicorns_lines_about_what_ours_say_are_dropped() -> None:
    assert not drop_second_line(record("ASGI callable returned without completing response."))
    assert not drop_second_line(record("Invalid HTTP request received."))
    assert not drop_second_line(record("Traceback ...\n    await getter\nasyncio.exceptions.CancelledError\n"))
    cancelled, failed = record("Exception in ASGI application"), record("Exception in ASGI application")
    cancelled.exc_info = (asyncio.CancelledError, asyncio.CancelledError(), None)
    failed.exc_info = (ValueError, ValueError(), None)
    assert not drop_second_line(cancelled) and drop_second_line(failed)
    assert drop_second_line(record("Traceback ...\nRuntimeError: the abacus broke"))
    assert drop_second_line(record("ASGI callable returned without starting response."))
