"""One browser's conversation: the request for its next answer, and what it refuses."""

import base64
import io

import pytest
from PIL import Image

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.errors import ImageError
from llava.serve.web.conversation_state import MAX_IMAGES, MAX_SIDE, WebChat
from llava.serve.worker.request_limits import RequestLimits

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


def test_web_chat_photo_of_a_phone_is_sent_upright(tmp_path) -> None:
    """Stored on its side with EXIF orientation 6: turned a quarter clockwise, what was left is at the top."""
    photo = Image.new("RGB", (40, 20), "blue")
    photo.paste("red", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "photo.jpg"
    photo.save(path, exif=exif, quality=95)
    chat = WebChat("m")
    chat.ask("?", [str(path)])
    sent = chat.turns[0].images[0].open()
    assert sent.size == (20, 40)
    top, bottom = sent.getpixel((10, 5)), sent.getpixel((10, 35))
    assert top[0] > 200 > 50 > top[2] and bottom[2] > 200 > 50 > bottom[0]


@pytest.mark.parametrize("form", ["TIFF", "EPS", "PPM", "ICO", "TGA", "animation"])
def test_web_chat_formats_are_those_of_workers(tmp_path, form) -> None:
    path = tmp_path / "image.png"  # the name says nothing
    image = Image.new("RGB", (16, 16), "red")
    if form == "animation":
        image.save(path, "GIF", save_all=True, append_images=[Image.new("RGB", (16, 16), "blue")])
    else:
        image.save(path, form)
    with pytest.raises(ImageError, match="image 2") as raised:
        WebChat("m").ask("?", [str(save(tmp_path / "good.png")), str(path)])
    assert str(tmp_path) not in str(raised.value)


def save(path):
    Image.new("RGB", (16, 16)).save(path)
    return path


def test_web_chat_takes_as_many_images_as_workers_do(tmp_path) -> None:
    path = str(save(tmp_path / "a.png"))
    chat = WebChat("m")
    chat.ask("?", [path] * (MAX_IMAGES - 1))
    with pytest.raises(ImageError, match="Clear"):
        chat.ask("?", [path] * 2)
    chat.ask("?", [path])
    assert RequestLimits().max_images == MAX_IMAGES


def test_web_chat_answer_without_text_is_left_out(chat) -> None:
    chat.turns[0].answer = ""
    prompt = chat.request(SAMPLING, {})["prompt"]
    assert prompt.endswith(f" USER: {DEFAULT_IMAGE_TOKEN}\nWhat is this?\nAnd now? ASSISTANT:")


@pytest.mark.parametrize(("mode", "said"), [(None, {}), ("", {"conv_mode": ""}), ("v1", {"conv_mode": "v1"})])
def test_web_chat_request_says_which_template_it_follows(mode, said) -> None:
    chat = WebChat("m", mode)
    chat.ask("?", [])
    assert {name: value for name, value in chat.request(SAMPLING, {}).items() if name == "conv_mode"} == said


@pytest.mark.parametrize(("name", "content"), [("no.png", b"not an image"), ("missing.png", None)])
def test_web_chat_bad_image_is_refused_and_changes_nothing(chat, tmp_path, name, content) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    before = chat.record()
    with pytest.raises(ImageError, match="image 1") as raised:
        chat.ask("And this?", [str(path)])
    assert str(tmp_path) not in str(raised.value)
    with pytest.raises(ImageError, match="nothing to ask"):
        chat.ask("  ", [])
    assert chat.record() == before
