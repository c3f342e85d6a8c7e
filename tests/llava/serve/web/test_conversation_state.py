"""One browser's conversation: the request for its next answer, and what it refuses."""

import base64
import io

import pytest
from PIL import Image

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.errors import ImageError
from llava.serve.web.conversation_state import MAX_SIDE, WebChat

SAMPLING = {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 7}


@pytest.fixture
def chat(image_file) -> WebChat:
    """Two turns, the second without an answer."""
    chat = WebChat("some-llava", "vicuna_v1")
    chat.ask("What is this? ", [str(image_file)])
    chat.turns[-1].answer = "A test."
    chat.ask("And now?", [])
    return chat


def test_web_chat_request_holds_all_turns_and_images(chat, image_file) -> None:
    body = chat.request(SAMPLING, {"latency_budget": 0.5})
    system, _, turns = body["prompt"].partition(" USER: ")
    assert turns == f"{DEFAULT_IMAGE_TOKEN}\nWhat is this? ASSISTANT: A test.</s>USER: And now? ASSISTANT:"
    assert system.startswith("A chat between a curious user")
    assert body["stop"] == "</s>" and body["model"] == "some-llava"
    assert (body["temperature"], body["max_new_tokens"], body["latency_budget"]) == (0.0, 7, 0.5)
    (sent,) = body["images"]
    shown = Image.open(io.BytesIO(base64.b64decode(sent)))
    assert shown.tobytes() == Image.open(image_file).convert("RGB").tobytes()


def test_web_chat_ask_again_makes_the_same_request(chat) -> None:
    before = chat.request(SAMPLING, {})
    chat.turns[-1].answer = "No."
    chat.ask_again()
    assert chat.request(SAMPLING, {}) == before


def test_web_chat_without_a_template_uses_the_one_of_the_models_name() -> None:
    chat = WebChat("llava-llama-2-7b")
    chat.ask("Hello", [])
    assert "[INST]" in chat.request(SAMPLING, {})["prompt"]


def test_web_chat_large_image_is_sent_smaller(tmp_path) -> None:
    path = tmp_path / "wide.png"
    Image.new("RGB", (3000, 300), "red").save(path)
    chat = WebChat("m")
    chat.ask("?", [str(path)])
    assert chat.turns[0].images[0].open().size == (MAX_SIDE, MAX_SIDE // 10)


@pytest.mark.parametrize(("name", "content"), [("no.png", b"not an image"), ("missing.png", None)])
def test_web_chat_bad_image_is_refused_and_changes_nothing(chat, tmp_path, name, content) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    before = chat.record()
    with pytest.raises(ImageError):
        chat.ask("And this?", [str(path)])
    with pytest.raises(ImageError, match="nothing to ask"):
        chat.ask("  ", [])
    assert chat.record() == before
