"""Clients for requests between the servers: no proxy of the environment, no redirect."""

import httpx
import pytest

from llava.errors import OptionError
from llava.serve.protocol.http_client import checked_url, new_client, new_sync_client

pytestmark = pytest.mark.anyio


def test_new_sync_client_ignores_proxies_of_the_environment(monkeypatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with new_sync_client(7.0) as client:
        assert not client.trust_env and not client._mounts
        assert client.timeout == httpx.Timeout(7.0, connect=5.0)
        assert not client.follow_redirects


async def test_new_client_ignores_proxies_of_the_environment(monkeypatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with new_client() as client:
        assert not client.trust_env and not client._mounts
        assert not client.follow_redirects


WRONG = [
    "",
    "localhost:21001",
    "http://",
    "http://[::1",
    "http://a:99999",
    "http://a:0",
    "ftp://a",
    "http://xn--n-00.x-",
]


@pytest.mark.parametrize("address", WRONG)
async def test_checked_url_that_no_client_can_reach_is_a_user_error(address) -> None:
    with pytest.raises(OptionError, match="--controller-address"):
        checked_url(address, "--controller-address")


async def test_checked_url_has_no_slash_at_its_end() -> None:
    assert checked_url("http://localhost:21001/", "--x") == "http://localhost:21001"
    assert checked_url("https://[::1]:8000", "--x") == "https://[::1]:8000"
