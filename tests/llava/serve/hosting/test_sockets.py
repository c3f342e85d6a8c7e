"""Ports are bound before anything slow is done; a taken one is a user error."""

import asyncio
import socket

import pytest

from llava.errors import OptionError
from llava.serve.hosting.sockets import bind, refusals, url_of


def test_bind_port_0_takes_a_free_one() -> None:
    [bound] = bind("127.0.0.1", 0)
    with bound:
        assert bound.getsockname()[1] > 0


@pytest.mark.anyio
async def test_connections_to_a_bound_socket_send_small_parts_at_once() -> None:
    found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def look(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    [bound] = bind("127.0.0.1", 0)
    server = await asyncio.start_server(look, sock=bound)
    async with server:
        _, writer = await asyncio.open_connection(*bound.getsockname())
        assert await asyncio.wait_for(found, 10) != 0
        writer.close()


def test_bind_localhost_takes_one_port_for_all_addresses() -> None:
    sockets = bind("localhost", 0)
    assert len({bound.getsockname()[1] for bound in sockets}) == 1
    for bound in sockets:
        bound.close()


def test_bind_taken_port_is_a_user_error_that_names_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OptionError, match=rf"port {port} of 127\.0\.0\.1 is taken by another program.*--port"):
            bind("127.0.0.1", port)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "256.1.1.1", "a" * 300, "192.0.2.1"])
def test_bind_host_that_is_not_this_machine_is_a_user_error(host) -> None:
    with pytest.raises(OptionError):
        bind(host, 0)


@pytest.mark.parametrize("port", [-1, 65536, 10**12])
def test_bind_port_out_of_range_is_a_user_error(port) -> None:
    with pytest.raises(OptionError):
        bind("127.0.0.1", port)


def test_refusals_pass_other_errors_on() -> None:
    with pytest.raises(FileNotFoundError), refusals("127.0.0.1", 1):
        raise FileNotFoundError("no such file")


@pytest.mark.parametrize(("host", "url"), [("localhost", "http://localhost:1"), ("::1", "http://[::1]:1")])
def test_url_of_ipv6_has_brackets(host, url) -> None:
    assert url_of(host, 1) == url
