"""Votes on the demo's answers, and the images that are kept with them."""

import hashlib
import json
import re

import pytest

from llava.serve.web import vote_log
from llava.serve.web.conversation_state import WebChat
from llava.serve.web.vote_log import VoteLog


@pytest.fixture
def chat(image_file) -> WebChat:
    """An answered question about an image, and one without an answer."""
    chat = WebChat("some-llava", "vicuna_v1")
    chat.ask("What is this? ", [str(image_file)])
    chat.turns[-1].answer = "A test."
    chat.ask("And now?", [])
    return chat


def test_vote_log_writes_a_line_for_each_vote_and_each_image_once(chat, tmp_path) -> None:
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


def test_vote_log_full_refuses_votes(chat, tmp_path, monkeypatch) -> None:
    log = VoteLog(tmp_path)
    assert log.add("upvote", chat)
    (file,) = tmp_path.glob("*-conv.json")
    size = file.stat().st_size
    monkeypatch.setattr(vote_log, "MAX_LOG_BYTES", size + 5)
    assert not log.add("upvote", chat) and file.stat().st_size == size
