"""Worker chunks as a completion and as server-sent events."""

import json

import pytest
from fixtures.fake_controller import api_app, asking

from llava.serve.protocol.schemas import chunk

pytestmark = pytest.mark.anyio
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "w5"}]}
PROMPT = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the human's questions. USER: w5 ASSISTANT:"
)
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
ANSWER = b"".join(chunk(PROMPT + text) for text in (" ", " a", " a ", " a b"))
ANSWER += chunk(PROMPT + " a b \n", finish_reason="stop", usage=USAGE, total_ms=5, more={"x": 1})


async def test_completion_has_text_without_surrounding_space_and_the_metadata() -> None:
    async with asking(api_app(worker_generate_stream=ANSWER)) as client:
        completion = (await client.post("/v1/chat/completions", json=CHAT)).json()
    assert completion["choices"][0]["message"] == {"role": "assistant", "content": "a b", "refusal": None}
    assert completion["llava"] == {"total_ms": 5, "more": {"x": 1}} and completion["usage"] == USAGE


async def test_events_have_pieces_without_surrounding_space_and_the_metadata_at_the_end() -> None:
    async with asking(api_app(worker_generate_stream=ANSWER)) as client:
        stream = (await client.post("/v1/chat/completions", json={**CHAT, "stream": True})).text
    events = [json.loads(line.removeprefix("data: ")) for line in stream.splitlines() if line.startswith("data: {")]
    pieces = [event["choices"][0]["delta"].get("content") for event in events]
    assert [piece for piece in pieces if piece] == ["a", " b"]
    assert events[-1]["llava"] == {"total_ms": 5, "more": {"x": 1}}
    assert events[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("text", ["", " ", "a <image> b", "<image>", "<im<image>age>", "USER: no", "</s>", "\ud800"])
async def test_answer_may_be_sent_back_as_it_came(text: str) -> None:
    answer = chunk(f"{PROMPT} {text}", finish_reason="stop", usage=USAGE)
    async with asking(api_app(worker_generate_stream=answer)) as client:
        message = (await client.post("/v1/chat/completions", json=CHAT)).json()["choices"][0]["message"]
        chat = [*CHAT["messages"], message, {"role": "user", "content": "w6"}]
        again = await client.post("/v1/chat/completions", json={**CHAT, "messages": chat})
    assert again.status_code == 200, again.text
