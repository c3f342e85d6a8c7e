"""Conversations kept in memory for pages that are loaded anew, and stored for their links."""

import base64
import io
import json
import os
import re

import pytest
from PIL import Image

from llava.errors import LlavaError
from llava.serve.web.conversation_state import LOADED_ANEW, Turn, WebChat
from llava.serve.web.kept_chats import KeptChats, size_of
from llava.serve.web.shared_chats import SharedChats
from llava.serve.web.transcript import transcript
from llava.serve.web.uploaded_image import UploadedImage


@pytest.fixture
def chat(image_file) -> WebChat:
    """A question with an image and its answer, and one that is being answered."""
    chat = WebChat("m", "v1", worker={"conv_mode": "v1"})
    chat.ask("What is <this>?", [str(image_file)])
    chat.begin()
    report = {"summary": "half of the units"}
    chat.take({"text": "p A test.", "finish_reason": "stop", "budget": report}, "p")
    chat.ask("And now?", [])
    chat.begin()
    chat.take({"text": "p Some"}, "p")
    return chat


def test_kept_chat_comes_back_as_it_was(chat) -> None:
    kept = KeptChats()
    kept.keep(chat)
    found = kept.find(chat.id)
    assert [(turn.question, turn.answer, turn.failure) for turn in found.turns] == [
        ("What is <this>?", "A test.", None),
        ("And now?", "Some", LOADED_ANEW),
    ]
    assert (found.images, found.answered, found.worker) == (chat.images, chat.answered, chat.worker)
    found.clear()
    assert len(kept.find(chat.id).turns) == 2, "a copy"
    assert kept.find("another") is None


def test_kept_chat_has_another_id_in_each_page_that_opens_it(chat) -> None:
    """So that two tabs with one conversation do not write over each other's."""
    kept = KeptChats()
    kept.keep(chat)
    assert len({chat.id, kept.find(chat.id).id, kept.find(chat.id).id}) == 3


def test_cleared_chat_is_forgotten(chat) -> None:
    kept = KeptChats()
    kept.keep(chat)
    chat.clear()
    kept.keep(chat)
    assert kept.find(chat.id) is None


@pytest.mark.parametrize("limit", ["bytes", "chats"])
def test_chats_that_were_kept_first_are_forgotten_first(chat, limit) -> None:
    kept = KeptChats(max_bytes=2 * size_of(chat)) if limit == "bytes" else KeptChats(max_chats=2)
    chats = [chat, chat.copy(), chat.copy()]
    for one in (*chats[:2], chats[0], chats[2]):
        kept.keep(one)
    assert [kept.find(one.id) is not None for one in chats] == [True, False, True]


def test_shared_chat_has_what_was_answered(chat, tmp_path) -> None:
    shared = SharedChats(tmp_path)
    found = shared.find(shared.add(chat))
    assert [turn.question for turn in found.turns] == ["What is <this>?", "And now?"]
    assert [turn.answer for turn in found.turns] == ["A test.", "Some"]
    assert (found.images, found.answered, found.mode) == (chat.images, chat.answered, "v1")
    assert found.copy().request({}, {})["prompt"] == chat.request({}, {})["prompt"]


@pytest.mark.parametrize("chat_id", ["", "x" * 22, "../" + "x" * 19, "/etc/passwd"])
def test_link_to_no_conversation_says_so(tmp_path, chat_id) -> None:
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(LlavaError, match="no conversation at this link"):
        SharedChats(tmp_path / "shared").find(chat_id)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"turns": [{}]}'])
def test_stored_conversation_that_is_broken_says_so(chat, tmp_path, text) -> None:
    shared = SharedChats(tmp_path)
    chat_id = shared.add(chat)
    (tmp_path / f"{chat_id}.json").write_text(text)
    with pytest.raises(LlavaError, match="cannot be read"):
        shared.find(chat_id)


def test_oldest_shared_chats_are_deleted_beyond_the_limit(chat, tmp_path) -> None:
    shared = SharedChats(tmp_path)
    first, second = shared.add(chat), shared.add(chat)
    os.utime(tmp_path / f"{first}.json", (1, 1))
    shared.max_bytes = 2 * (tmp_path / f"{second}.json").stat().st_size
    third = shared.add(chat)
    assert {path.stem for path in tmp_path.iterdir()} == {second, third}


def test_stored_conversation_is_plain_json(chat, tmp_path) -> None:
    chat_id = SharedChats(tmp_path).add(chat)
    fields = json.loads((tmp_path / f"{chat_id}.json").read_text())
    assert (fields["model"], fields["turns"][0]["answer"]) == ("m", "A test.")


def test_transcript_shows_images_at_up_to_800_pixels(tmp_path) -> None:
    Image.new("RGB", (1344, 672), "red").save(tmp_path / "wide.png")
    chat = WebChat("m", turns=[Turn("What?", (UploadedImage.read(str(tmp_path / "wide.png"), 1),), "A test.")])
    (jpeg,) = re.findall("src='data:image/jpeg;base64,([^']+)'", transcript(chat))
    assert Image.open(io.BytesIO(base64.b64decode(jpeg))).size == (800, 400)


def test_transcript_is_one_page_that_fetches_nothing(chat) -> None:
    page = transcript(chat)
    assert "What is &#60;this&#62;?" in page and "A test." in page and "half of the units" in page
    assert page.count("src='data:image/jpeg;base64,") == 1 == page.count("src=")
    assert "And now?" in page and "http" not in page and "<script" not in page
    assert "<article" not in transcript(WebChat())
