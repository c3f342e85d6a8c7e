"""Prompt templates of workers that are away, come back with another one, or differ from each other."""

import json

import httpx
import pytest
from fixtures.fake_controller import FakeController, asking

from llava.serve.controller import Controller
from llava.serve.controller import create_app as controller_app
from llava.serve.openai_api import ChatApi, create_app
from llava.serve.openai_compat import templates
from llava.serve.openai_compat.controller_client import ControllerClient
from llava.serve.protocol.schemas import WorkerStatus, chunk

pytestmark = pytest.mark.anyio
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "w5"}], "max_tokens": 3}
STALLED = httpx.ReadTimeout("slow")


class Workers(FakeController):
    """A controller whose workers refuse prompts of another template than theirs. ``ready``: replies to ``/ready``, one
    after the other, the last one again and again; ``modes``: the workers' templates, asked in turn."""

    def __init__(self, ready: list, modes: list[str]) -> None:
        super().__init__()
        self.ready, self.modes, self.asked, self.bodies = list(ready), modes, 0, []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/ready":
            self.asked += 1
            reply = self.ready.pop(0) if len(self.ready) > 1 else self.ready[0]
            if isinstance(reply, Exception):
                raise reply
            return reply if isinstance(reply, httpx.Response) else httpx.Response(200, json={"conv_mode": reply})
        if request.url.path != "/worker_generate_stream":
            return await super().handle_async_request(request)
        body = json.loads(await request.aread())
        self.bodies.append(body)
        mode = self.modes.pop(0) if len(self.modes) > 1 else self.modes[0]
        if "conv_mode" in body and body["conv_mode"] != mode:
            refusal = {"text": "another template", "error_code": 1, "reason": "other_template"}
            return httpx.Response(409, json=refusal)
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        return httpx.Response(200, content=chunk(body["prompt"] + " yes", finish_reason="stop", usage=usage))


@pytest.fixture
def clock(monkeypatch):
    """``clock.now``: the time that the templates' age is counted by, in seconds."""

    class Clock:
        now = 1000.0

        def monotonic(self) -> float:
            return self.now

    monkeypatch.setattr(templates, "time", clock := Clock())
    return clock


def client_of(workers: Workers) -> httpx.AsyncClient:
    client = httpx.AsyncClient(transport=workers)
    return asking(create_app(ChatApi(ControllerClient("http://controller", client))))


async def ask(client) -> httpx.Response:
    return await client.post("/v1/chat/completions", json=CHAT)


async def test_template_outlives_a_worker_that_does_not_answer_for_a_while(clock) -> None:
    workers = Workers(["mistral_instruct", STALLED, STALLED, "mistral_instruct"], ["mistral_instruct"])
    async with client_of(workers) as client:
        for now in (0, 10, 61, 63, 67, 200, 300):
            clock.now = 1000.0 + now
            assert (await ask(client)).status_code == 200
    assert {body["prompt"] for body in workers.bodies} == {"[INST] w5 [/INST]"}
    assert workers.asked == 5, "at 0, 61, 67, 200 and 300 s: sooner again where it did not answer"


@pytest.mark.parametrize(
    "reply",
    [
        STALLED,
        httpx.ConnectError("refused"),
        httpx.Response(502, text="<html>bad gateway</html>"),
        httpx.Response(500, json={"text": "internal"}),
        httpx.Response(200, json=[]),
    ],
)
async def test_template_that_was_never_named_is_not_assumed(clock, reply) -> None:
    workers = Workers([reply, "mistral_instruct"], ["mistral_instruct"])
    async with client_of(workers) as client:
        refused, answered = await ask(client), await ask(client)
    assert refused.status_code == 503 and refused.headers["Retry-After"] == "1"
    assert refused.json()["error"]["code"] == "template_unknown" and "template" in refused.json()["error"]["message"]
    assert answered.status_code == 200 and [body["prompt"] for body in workers.bodies] == ["[INST] w5 [/INST]"]


async def test_template_of_a_worker_that_names_none_follows_the_models_name(clock) -> None:
    workers = Workers([None, "v1"], [""])
    async with client_of(workers) as client:
        assert [(await ask(client)).status_code for _ in range(2)] == [200, 200]
    assert [body["conv_mode"] for body in workers.bodies] == ["", ""] and workers.asked == 1
    assert all("USER: w5 ASSISTANT:" in body["prompt"] for body in workers.bodies)


async def test_template_of_upstreams_worker_is_asked_for_each_time(clock) -> None:
    workers = Workers([httpx.Response(404, json={"detail": "Not Found"}), "mistral_instruct"], ["mistral_instruct"])
    async with client_of(workers) as client:
        assert [(await ask(client)).status_code for _ in range(2)] == [200, 200]
    assert "conv_mode" not in workers.bodies[0] and workers.bodies[1]["conv_mode"] == "mistral_instruct"


async def test_template_of_a_worker_that_was_replaced_is_used_at_once(clock) -> None:
    workers = Workers(["v1", "mistral_instruct"], ["v1", "mistral_instruct"])
    async with client_of(workers) as client:
        assert [(await ask(client)).status_code for _ in range(2)] == [200, 200]
    assert [body["conv_mode"] for body in workers.bodies] == ["v1", "v1", "mistral_instruct"]
    assert workers.bodies[-1]["prompt"] == "[INST] w5 [/INST]"


async def test_workers_that_differ_get_prompts_of_their_own_template_or_none(clock) -> None:
    """The one that names its template is not the one that gets the request, again and again."""
    workers = Workers(["v1"], ["mistral_instruct"])
    async with client_of(workers) as client:
        refused = await ask(client)
    assert refused.status_code == 503 and "different" in refused.json()["error"]["message"]
    workers = Workers(["v1", "mistral_instruct"], ["mistral_instruct", "v1", "mistral_instruct"])
    async with client_of(workers) as client:
        assert (await ask(client)).status_code == 200


async def test_template_of_a_name_that_is_not_known_here_is_refused(clock) -> None:
    async with client_of(Workers(["next_year"], ["next_year"])) as client:
        refused = await ask(client)
    assert refused.status_code == 502 and "'next_year'" in refused.json()["error"]["message"]


class Chain(Workers):
    """Controllers that are workers of one another: real ones, which know the next by name, before the last worker."""

    def __init__(self, depth: int, mode: str) -> None:
        super().__init__([mode], [mode])
        self.replies["get_worker_address"] = {"address": "http://controller-0"}
        self.inner = {f"controller-{number}": Controller() for number in range(depth)}
        for number, controller in enumerate(self.inner.values(), start=1):
            below = f"http://controller-{number}" if number < depth else "http://worker"
            controller.registry.register(below, False, WorkerStatus(model_names=["tiny"], speed=1, queue_length=0))
        self.apps = {name: httpx.ASGITransport(controller_app(one)) for name, one in self.inner.items()}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        handler = self.apps.get(request.url.host) or super()
        return await handler.handle_async_request(request)


@pytest.mark.parametrize("depth", [1, 2])
async def test_template_is_the_last_workers_where_controllers_are_workers_of_controllers(clock, depth) -> None:
    workers = Chain(depth, "mistral_instruct")
    async with client_of(workers) as client:
        assert (await ask(client)).status_code == 200
    assert [body["prompt"] for body in workers.bodies] == ["[INST] w5 [/INST]"] and workers.asked == 1


async def test_controllers_that_name_each_other_in_a_circle_are_not_followed_forever(clock) -> None:
    workers = Chain(1, "v1")
    [controller] = workers.inner.values()
    controller.registry.forget("http://worker", "by the test")
    status = WorkerStatus(model_names=["tiny"], speed=1, queue_length=0)
    controller.registry.register("http://controller-0", False, status)
    async with client_of(workers) as client:
        refused = await ask(client)
    assert refused.status_code == 503 and refused.json()["error"]["code"] == "template_unknown"
