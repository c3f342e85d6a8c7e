"""A demo page whose controller answers as the test says."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gradio as gr
import pytest

from llava.errors import LlavaError
from llava.serve.gradio_web_server import create_app, demo_middleware
from llava.serve.web.components import Page
from llava.serve.web.conversation_state import Answered
from llava.serve.web.demo_part import SIDES, Difference
from llava.serve.web.vote_log import VoteLog

WAIT_MS = 20_000


class FakeClient:
    """A controller's client that answers every request in two chunks. ``requests``: the bodies that it got.

    failure: raised after the first chunk. refusal: raised before it. waits: what a chunk before the first one says.
    """

    def __init__(self) -> None:
        self.requests: list[Mapping[str, Any]] = []
        self.failure: LlavaError | None = None
        self.refusal: LlavaError | None = None
        self.waits: Mapping[str, Any] | None = None
        self.text = "sunny"
        self.first_ms = 50.0
        self.begins, self.goes_on = threading.Event(), threading.Event()  # the first and second chunk wait for them
        self.begins.set()
        self.goes_on.set()

    def models(self, refresh: bool) -> list[str]:
        return ["m"]

    def worker_state(self, model: str) -> dict[str, Any]:
        return {"conv_mode": "vicuna_v1", "model": model}

    def answer(self, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        self.requests.append(body)
        if self.refusal is not None:
            raise self.refusal
        prompt = body["prompt"]
        if self.waits is not None:
            yield {"text": prompt, **self.waits}
        assert self.begins.wait(60)
        yield {"text": f"{prompt} {self.text[:3]}", "time_to_first_token_ms": self.first_ms}
        assert self.goes_on.wait(60)
        if self.failure is not None:
            raise self.failure
        yield {"text": f"{prompt} {self.text}", "finish_reason": "stop", **self.figures()}

    def figures(self) -> dict[str, Any]:
        times = {"time_to_first_token_ms": self.first_ms, "queue_ms": 0.2, "token_ms": [4.0, 6.0], "total_ms": 60.0}
        return {**times, "usage": {"completion_tokens": 3}}


class StrengthPart:
    """A plug-in's part: a control ``strength``, and a panel that counts answers and images."""

    compared: Mapping[str, Any] = {"strength_kept": True}

    def controls(self, side: str = "") -> Sequence[Any]:
        return [gr.Slider(0, 1, 0.5 if side == SIDES[1] else 1)]

    def settings(self) -> Sequence[Any]:
        return []

    def fields(self, values: Sequence[Any]) -> Mapping[str, Any]:
        return {"strength": values[0]} if values[0] != "" else {}

    def fit(self, state: Mapping[str, Any]) -> Sequence[Any]:
        return [gr.Slider(label=f"of {state.get('model', 'nothing')}")]

    def panels(self) -> Sequence[Any]:
        return [gr.HTML("start")]

    def show(self, answers: Sequence[Answered], images: Sequence[bytes], state: Mapping[str, Any]) -> Sequence[Any]:
        shown = f"answers: {len(answers)}" + f", {len(images)} images" * bool(images)
        return [shown if answers else "start"]

    def show_live(
        self, notes: Mapping[str, Any], answers: Sequence[Answered], state: Mapping[str, Any]
    ) -> Sequence[Any]:
        return [f"live: {sorted(notes)}"]

    def differences(self, left: Answered, right: Answered) -> Sequence[Difference]:
        return [Difference("letters", str(len(left.answer)), str(len(right.answer)))]


@pytest.fixture
def page(tmp_path) -> Page:
    """A page with one plug-in part."""
    return Page(FakeClient(), VoteLog(tmp_path / "votes"), [StrengthPart()])  # type: ignore[arg-type]


@pytest.fixture
def open_demo(browser, page, listen, tmp_path, monkeypatch):
    """``open_demo(**options)``: the demo with a fake controller, opened in a browser; options: of playwright's page.

    Of what it returns, ``outside`` has the addresses that are not the demo's, ``complaints`` the browser's errors.
    """
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    address = listen(create_app(page, demo_middleware(), tmp_path / "uploads")).address
    tabs = []

    def opened(**options):
        tab = browser.new_page(**{"viewport": {"width": 1280, "height": 1000}, **options})
        tabs.append(tab)
        tab.set_default_timeout(WAIT_MS)
        tab.outside, tab.complaints = [], []
        own = (address, "data:", "blob:")
        tab.on("request", lambda request: request.url.startswith(own) or tab.outside.append(request.url))
        tab.on("console", lambda message: message.type == "error" and tab.complaints.append(message.text))
        tab.goto(address)
        tab.wait_for_selector("#question textarea")
        tab.wait_for_function("document.querySelector('#model input').value == 'm'")
        return tab

    yield opened
    for tab in tabs:
        tab.close()
