"""The web demo's application: monitoring and the names that it answers to, next to the page."""

import httpx
import pytest
from fixtures.fake_controller import asking

from llava.errors import OptionError
from llava.serve import gradio_web_server
from llava.serve.middleware.allowed_hosts import allowed_names
from llava.serve.web.client import ServingError
from llava.serve.web.components import Page
from llava.serve.web.vote_log import VoteLog

pytestmark = pytest.mark.anyio


class Client:
    """A controller's client that lists what the test says."""

    def __init__(self) -> None:
        self.listed: list[str] | Exception = ["tiny"]

    def models(self, refresh: bool = True) -> list[str]:
        assert not refresh, "a probe costs the workers nothing"
        if isinstance(self.listed, Exception):
            raise self.listed
        return self.listed


@pytest.fixture
def demo(tmp_path):
    """The demo's application with a fake controller, as ``(app, client, middleware)``."""
    client = Client()
    page = Page(client, VoteLog(tmp_path / "votes"), [])
    middleware = gradio_web_server.demo_middleware(allowed_names("127.0.0.1"))
    return gradio_web_server.create_app(page, middleware, tmp_path), client, middleware


async def test_page_and_monitoring_are_served(demo) -> None:
    app, client, middleware = demo
    async with asking(app) as asked:
        local = {"Host": "localhost:7860"}
        assert "LLaVA" in (await asked.get("/", headers=local)).text
        assert (await asked.get("/health", headers=local)).json() == {"status": "ok"}
        assert (await asked.get("/ready", headers=local)).json() == {"ready": True, "reason": None, "models": ["tiny"]}
        assert "http_requests_total" in (await asked.get("/metrics", headers=local)).text
        client.listed = ServingError("the controller cannot be reached")
        assert (await asked.get("/ready", headers=local)).json()["reason"] == "the controller cannot be reached"
        middleware.lifecycle.drain()
        assert [(await asked.get(path, headers=local)).status_code for path in ("/", "/ready", "/health")] == [
            503,
            503,
            200,
        ]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "rebound.127.0.0.1.example"])
async def test_page_under_another_name_is_refused(demo, host) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(demo[0]), base_url=f"http://{host}") as client:
        for path in ("/", "/config", "/gradio_api/info", "/metrics"):
            assert (await client.get(path)).status_code == 421


def test_bind_first_free_goes_on_to_the_next_port(monkeypatch) -> None:
    tried = []

    def bind(host: str, port: int) -> list:
        tried.append(port)
        if port < 7862:
            raise OptionError("taken")
        return []

    monkeypatch.setattr(gradio_web_server, "bind", bind)
    assert gradio_web_server.bind_first_free("127.0.0.1") == [] and tried == [7860, 7861, 7862]
