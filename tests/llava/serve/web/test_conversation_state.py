"""One browser's conversation: the request for its next answer, and what it refuses."""

import base64
import io
import math
import os

import pytest
from PIL import Image

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.errors import ImageError
from llava.serve.middleware.body_limits import BodyLimits
from llava.serve.web.conversation_state import MAX_IMAGES, STOPPED, WebChat
from llava.serve.web.uploaded_image import MAX_SIDES, UploadedImage
from llava.serve.worker.request_limits import RequestLimits

SAMPLING = {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 7}


def opened(image: UploadedImage) -> Image.Image:
    return Image.open(io.BytesIO(image.png))


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


@pytest.mark.parametrize(
    ("size", "sent"),
    [
        ((3000, 300), (1344, 134)),
        ((300, 3000), (134, 1344)),
        ((2688, 1344), (1344, 672)),
        ((2000, 1500), (896, 672)),
        ((1500, 2000), (672, 896)),
        ((2000, 2000), (672, 672)),
        ((1008, 336), (1008, 336)),
    ],
)
def test_web_chat_large_image_is_sent_at_1344_by_672(tmp_path, size, sent) -> None:
    """So that the models that read an image in parts, in grids up to 1008 or 1344 pixels long, see its details."""
    path = tmp_path / "large.png"
    Image.new("RGB", size, "red").save(path)
    chat = WebChat("m")
    chat.ask("?", [str(path)])
    assert opened(chat.turns[0].images[0]).size == sent


def test_web_chat_request_of_as_many_images_as_workers_take_is_taken() -> None:
    """Also where these are noise, which a PNG file cannot make smaller."""
    noise = io.BytesIO()
    Image.frombytes("RGB", MAX_SIDES, os.urandom(3 * math.prod(MAX_SIDES))).save(noise, "PNG")
    assert MAX_IMAGES * len(base64.b64encode(noise.getvalue())) < BodyLimits().max_bytes


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
    sent = opened(chat.turns[0].images[0])
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
    chat.turns[-1].answer = "Squares."
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


def test_answer_goes_on_while_no_other_one_has_begun(chat) -> None:
    number = chat.begin()
    chat.take({"text": "p A", "queue_position": 0}, "p")
    chat.take({"text": "p A b", "time_to_first_token_ms": 5.0}, "p")
    assert (chat.turns[-1].answer, chat.answers) == ("A b", number)
    assert chat.live.notes == {"queue_position": 0, "time_to_first_token_ms": 5.0}
    chat.take({"text": "p A b c", "error_code": 0, "finish_reason": "stop"}, "p")
    assert chat.live is None and chat.turns[-1].reply == {"finish_reason": "stop"}
    assert [one.answer for one in chat.answered] == ["A b c"]


def test_answer_that_was_given_again_counts_as_two(chat) -> None:
    for text in ("p one", "p two"):
        chat.ask_again()
        chat.begin()
        chat.take({"text": text, "finish_reason": "stop"}, "p")
    assert [one.answer for one in chat.answered] == ["one", "two"]
    assert [turn.answer for turn in chat.turns] == ["A test.", "two"]


def test_stop_fails_only_what_was_not_answered(chat) -> None:
    chat.begin()
    chat.take({"text": "p done", "finish_reason": "stop"}, "p")
    chat.stop()
    assert chat.turns[-1].failure is None
    chat.ask("And now?", [])
    chat.stop()
    assert chat.turns[-1].failure == STOPPED


def test_small_copy_of_an_image_is_shown(tmp_path) -> None:
    path = tmp_path / "wide.png"
    Image.new("RGB", (3000, 300), "red").save(path)
    url = UploadedImage.read(str(path), 1).url
    shown = Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/jpeg;base64,"))))
    assert shown.size == (320, 32)


def test_image_that_was_deleted_meanwhile_says_so(tmp_path) -> None:
    with pytest.raises(ImageError, match="image 2 has not arrived, or was deleted") as raised:
        UploadedImage.read(str(tmp_path / "old.png"), 2)
    assert str(tmp_path) not in str(raised.value)
