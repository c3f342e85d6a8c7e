"""A demo page whose controller answers as the test says."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gradio as gr
import pytest

from llava.errors import LlavaError
from llava.serve.web.components import Page
from llava.serve.web.vote_log import VoteLog


class FakeClient:
    """A controller's client that answers every request in two chunks. ``requests``: the bodies that it got.

    failure: raised after the first chunk. refusal: raised before it.
    """

    def __init__(self) -> None:
        self.requests: list[Mapping[str, Any]] = []
        self.failure: LlavaError | None = None
        self.refusal: LlavaError | None = None
        self.text = "sunny"
        self.goes_on = threading.Event()  # the second chunk waits for it
        self.goes_on.set()

    def models(self, refresh: bool) -> list[str]:
        return ["m"]

    def conv_mode(self, model: str) -> str:
        return "vicuna_v1"

    def answer(self, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        self.requests.append(body)
        if self.refusal is not None:
            raise self.refusal
        yield {"text": f"{body['prompt']} {self.text[:3]}"}
        assert self.goes_on.wait(60)
        if self.failure is not None:
            raise self.failure
        yield {"text": f"{body['prompt']} {self.text}", "finish_reason": "stop"}


class StrengthPart:
    """A plug-in's part: a control ``strength``, and a panel that shows the number of replies in this session."""

    def controls(self) -> Mapping[str, Any]:
        return {"strength": gr.Slider(0, 1, 1)}

    def panel(self) -> Sequence[Any]:
        return [gr.HTML("start")]

    def show(self, reply: Mapping[str, Any], memory: dict[str, Any], images: Sequence[bytes] = ()) -> Sequence[Any]:
        if not reply:
            return ["start"]
        memory["replies"] = memory.get("replies", 0) + 1
        return [f"reply {memory['replies']}" + f", {len(images)} images" * bool(images)]


@pytest.fixture
def page(tmp_path) -> Page:
    """A page with one plug-in part."""
    return Page(FakeClient(), VoteLog(tmp_path / "votes"), [StrengthPart()])  # type: ignore[arg-type]
