"""What visitors of the demo may ask of Gradio: what the page does, no URLs that it would fetch, no body without end."""

import logging

import pytest
from fastapi import FastAPI, Request
from fixtures.fake_controller import asking

from llava.serve import gradio_web_server
from llava.serve.web.page_requests import PageRequests, holds_url, is_asked_by_page

pytestmark = pytest.mark.anyio
OUTSIDE = "https://outside.example/large.png"
JOIN = "/gradio_api/queue/join"


def file_of(path: str) -> dict:
    """A file as Gradio's page names it."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


@pytest.fixture
def demo(page, tmp_path) -> FastAPI:
    page.parts = []
    return gradio_web_server.create_app(page, gradio_web_server.demo_middleware(), tmp_path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"/gradio_api/file={OUTSIDE}"),
        ("HEAD", "/gradio_api/file=HTTP://outside.example/"),
        ("GET", "/gradio_api/proxy=https://a.hf.space/x"),
        ("GET", "/gradio_api/deep_link"),
        ("GET", "/gradio_api/run-history/buckets"),
        ("POST", "/gradio_api/run-history/connect"),
        ("POST", "/gradio_api/process_recording"),
        ("POST", "/gradio_api/vibe-edit"),
        ("POST", "/gradio_api/run/ask"),
        ("POST", "/gradio_api/call/ask"),
        ("POST", "/gradio_api/component_server"),
        ("POST", "/login"),
        ("PUT", JOIN),
        ("DELETE", "/"),
    ],
)
async def test_what_the_page_does_not_ask_is_not_there(demo, method, path) -> None:
    async with asking(demo) as client:
        assert (await client.request(method, path, json={})).status_code == 404


async def test_event_that_waits_in_the_queue_is_not_called_directly(demo) -> None:
    """Only examples are, which fill the question's field."""
    async with asking(demo) as client:
        events = (await client.get("/config")).json()["dependencies"]
        queued = next(event["id"] for event in events if event["queue"] and event["backend_fn"])
        body = {"fn_index": queued, "data": [], "session_hash": "a"}
        assert (await client.post("/gradio_api/run/predict", json=body)).status_code == 404


@pytest.mark.parametrize("path", ["/", "/config", "/theme.css", "/gradio_api/info", "/gradio_api/startup-events"])
async def test_what_the_page_asks_is_answered(demo, path) -> None:
    async with asking(demo) as client:
        assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", JOIN),
        ("POST", "/gradio_api/upload"),
        ("POST", "/gradio_api/cancel"),
        ("POST", "/gradio_api/run/predict"),
        ("GET", "/gradio_api/queue/data"),
        ("GET", "/gradio_api/heartbeat/abc"),
        ("GET", "/gradio_api/file=/tmp/llava-demo-x/a/photo.png"),
        ("GET", "/gradio_api/upload_progress"),
        ("GET", "/assets/index.js"),
    ],
)
def test_requests_of_the_page_pass(method, path) -> None:
    assert is_asked_by_page(method, path)


@pytest.mark.parametrize(
    "data",
    [
        [{"text": "what?", "files": [file_of(OUTSIDE)]}],
        [{"text": "what?", "files": [file_of("/tmp/a.png"), file_of("HTTP://outside.example/a")]}],
        [file_of(OUTSIDE)],
        [0.5, {"deep": [{"er": file_of(" http://outside.example/")}]}],
    ],
)
async def test_file_that_is_a_url_is_refused(data) -> None:
    app = FastAPI()
    app.add_middleware(PageRequests)

    @app.post(JOIN)
    async def join(request: Request) -> dict:
        return await request.json()

    question = {"data": [{"text": f"what is at {OUTSIDE}?", "files": [file_of("/tmp/a.png")]}], "fn_index": 1}
    async with asking(app) as client:
        assert (await client.post(JOIN, json={"data": data})).status_code == 400
        passed = await client.post(JOIN, json=question)
        assert passed.status_code == 200 and passed.json() == question, "a question may speak of one"


@pytest.mark.parametrize("value", [None, 5, "http://a", {"url": OUTSIDE, "path": "/tmp/a"}, {"path": 5}, [[], {}]])
def test_values_without_a_file_of_a_url_pass(value) -> None:
    assert not holds_url(value)


async def test_stream_of_an_unknown_conversation_is_no_failure_of_the_server(demo, caplog) -> None:
    """As a page asks that was open while the demo was started again."""
    with caplog.at_level(logging.DEBUG, "llava.serve.middleware.request_ids"):
        async with asking(demo) as client:
            reply = await client.get("/gradio_api/queue/data", params={"session_hash": "of-another-process"})
    assert '"session_not_found":true' in reply.text.replace(" ", "")
    [record] = [r for r in caplog.records if "queue/data" in r.getMessage()]
    assert " 404 " in record.getMessage() and record.exc_info is None and record.levelno == logging.WARNING


async def test_call_of_a_large_body_is_refused(demo) -> None:
    async with asking(demo) as client:
        reply = await client.post(JOIN, json={"data": ["x" * (5 * 1024 * 1024)]})
    assert reply.status_code == 413


async def test_upload_may_be_larger_than_a_call(demo) -> None:
    async with asking(demo) as client:
        reply = await client.post("/gradio_api/upload", files={"files": ("a.png", b"x" * (6 * 1024 * 1024))})
    assert reply.status_code == 200 and len(reply.json()) == 1
