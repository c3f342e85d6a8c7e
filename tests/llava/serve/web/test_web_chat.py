"""The web demo without its browser: what a chat asks, what a vote leaves, what the panel says."""

import base64
import hashlib
import io
import json
import re

import pytest
from PIL import Image

from ada.serve.demo_panel import NO_BUDGET, START, BudgetPanel
from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.errors import ImageError
from llava.serve.web import vote_log
from llava.serve.web.client import ServingError, WebClient
from llava.serve.web.conversation_state import LONGEST_SIDE, WebChat
from llava.serve.web.vote_log import VoteLog

SAMPLING = {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 7}


@pytest.fixture
def chat(picture) -> WebChat:
    """Two turns, the second without an answer."""
    chat = WebChat("some-llava", "vicuna_v1")
    chat.ask("What is this? ", [str(picture)])
    chat.turns[-1].answer = "A test."
    chat.ask("And now?", [])
    return chat


def test_a_request_tells_the_whole_conversation(chat, picture) -> None:
    body = chat.request(SAMPLING, {"latency_budget": 0.5})
    system, _, told = body["prompt"].partition(" USER: ")
    assert told == f"{DEFAULT_IMAGE_TOKEN}\nWhat is this? ASSISTANT: A test.</s>USER: And now? ASSISTANT:"
    assert system.startswith("A chat between a curious user")
    assert body["stop"] == "</s>" and body["model"] == "some-llava"
    assert (body["temperature"], body["max_new_tokens"], body["latency_budget"]) == (0.0, 7, 0.5)
    (sent,) = body["images"]
    shown = Image.open(io.BytesIO(base64.b64decode(sent)))
    assert shown.tobytes() == Image.open(picture).convert("RGB").tobytes()


def test_an_answer_can_be_asked_for_again(chat) -> None:
    before = chat.request(SAMPLING, {})
    chat.turns[-1].answer = "No."
    chat.ask_again()
    assert chat.request(SAMPLING, {}) == before


def test_a_model_that_names_no_template_gets_the_one_of_its_name() -> None:
    chat = WebChat("llava-llama-2-7b")
    chat.ask("Hello", [])
    assert "[INST]" in chat.request(SAMPLING, {})["prompt"]


def test_large_pictures_are_sent_small(tmp_path) -> None:
    path = tmp_path / "wide.png"
    Image.new("RGB", (3000, 300), "red").save(path)
    chat = WebChat("m")
    chat.ask("?", [str(path)])
    assert chat.turns[0].pictures[0].open().size == (LONGEST_SIDE, LONGEST_SIDE // 10)


@pytest.mark.parametrize(("name", "content"), [("no.png", b"not a picture"), ("gone.png", None)])
def test_a_bad_picture_changes_nothing(chat, tmp_path, name, content) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    before = chat.record()
    with pytest.raises(ImageError):
        chat.ask("And this?", [str(path)])
    with pytest.raises(ImageError, match="nothing to ask"):
        chat.ask("  ", [])
    assert chat.record() == before


def test_votes_are_lines_and_pictures_are_kept_once(chat, tmp_path) -> None:
    log = VoteLog(tmp_path / "votes")
    assert log.add("upvote", chat) and log.add("flag", chat)
    (file,) = (tmp_path / "votes").glob("*-conv.json")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-conv\.json", file.name)
    first, second = map(json.loads, file.read_text().splitlines())
    assert (first["type"], second["type"]) == ("upvote", "flag")
    (kept,) = (tmp_path / "votes" / "serve_images").iterdir()
    assert first["state"]["turns"][0]["images"] == [kept.stem]
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == kept.stem
    assert str(tmp_path) not in file.read_text(), "no paths"


def test_a_full_log_takes_no_votes(chat, tmp_path, monkeypatch) -> None:
    log = VoteLog(tmp_path)
    assert log.add("upvote", chat)
    (file,) = tmp_path.glob("*-conv.json")
    size = file.stat().st_size
    monkeypatch.setattr(vote_log, "MAX_LOG_BYTES", size + 5)
    assert not log.add("upvote", chat) and file.stat().st_size == size


def test_a_controller_that_is_not_there_is_named() -> None:
    client = WebClient("http://127.0.0.1:9/")
    for ask in (client.models, lambda: client.conv_mode("m"), lambda: list(client.answer({}))):
        with pytest.raises(ServingError, match=r"http://127\.0\.0\.1:9 cannot be reached.*--controller-url"):
            ask()


@pytest.mark.anyio
async def test_the_panel_says_what_a_worker_says(make_service, client_of) -> None:
    panel, memory = BudgetPanel(), {}
    assert panel.show({}, memory) == [START]
    async with client_of(make_service()) as client:
        half, whole = [(await client.ask(max_new_tokens=3, latency_budget=b))[-1] for b in (0.5, 1.0)]
    assert panel.show({**half, "latency_budget": None}, memory) == [NO_BUDGET]
    facts, full = half["latency_budget"], whole["latency_budget"]
    assert facts["whole_prefill_gflops"] == pytest.approx(full["prefill_gflops"])
    assert facts["whole_decode_gflops_per_token"] == pytest.approx(full["decode_gflops_per_token"])
    assert full["whole_prefill_gflops"] == pytest.approx(full["prefill_gflops"])
    (before,) = panel.show(half, memory)
    assert "not measured yet" in before and "<img" in before
    panel.show(whole, memory)
    (after,) = panel.show(half, memory)
    took = whole["time_to_first_token_ms"] - whole["queue_ms"]
    assert f"whole model, last time: {took:.0f} ms" in after
    run, of = facts["heads"]
    assert f"<td>{run} of {of}</td>" in after
    assert panel.show(whole, memory)[0].split("</th>")[0] != after.split("</th>")[0], "another plan, another picture"
