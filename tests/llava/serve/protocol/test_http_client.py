"""Clients for requests between the servers: no proxy of the environment, no redirect."""

import httpx
import pytest

from llava.serve.protocol.http_client import new_client, new_sync_client

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
