"""A chat in the terminal: which way up its images are, and what is asked and stays at the end of the context."""

import pytest
from PIL import Image

from llava.conversation import conv_templates
from llava.errors import ImageError, OptionError
from llava.generation import SamplingParams
from llava.model.loaded_model import open_model
from llava.serve.chat_session import ChatSession
from llava.serve.cli import run_command


@pytest.fixture
def photo(tmp_path):
    """A photograph of 30 by 20 pixels, held on its side."""
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.effect_noise((30, 20), 90).convert("RGB").save(tmp_path / "photo.jpg", exif=exif)
    return str(tmp_path / "photo.jpg")


def session(**options) -> ChatSession:
    return ChatSession(None, None, None, conv_templates["v1"], SamplingParams(), options)


def test_open_images_reads_what_is_stored_and_notes_that_it_is_held_otherwise(photo, image_file):
    chat = session()
    (note,) = chat.open_images([photo, str(image_file)])
    assert photo in note and "as it is stored" in note and "EXIF orientation is 8" in note
    assert chat.images[0].size == (30, 20) and len(chat.images) == 2


def test_open_images_turns_them_where_the_option_says_so(photo):
    chat = session(exif_orientation=True)
    (note,) = chat.open_images([photo])
    assert "turned upright" in note and "8" in note
    expected = Image.open(photo).transpose(Image.Transpose.ROTATE_90)
    assert chat.images[0].tobytes() == expected.tobytes()


def test_image_command_prints_the_note(photo, image_file):
    assert run_command(session(), f"/image {photo}").splitlines()[1].startswith(f"[{photo} is read as it is stored")
    assert run_command(session(), f"/image {image_file}") == f"image: {image_file}"


def test_open_images_that_fail_keep_the_images_before(photo, tmp_path):
    chat = session()
    chat.open_images([photo])
    with pytest.raises(ImageError, match=r"nowhere\.png"):
        chat.open_images([str(tmp_path / "nowhere.png")])
    assert len(chat.images) == 1


@pytest.fixture
def chat(make_checkpoint):
    loaded = open_model({"model_path": str(make_checkpoint(tokenizer_model_max_length=24)), "device": "cpu"})
    loaded.model.generation_config.eos_token_id = None
    sampling = SamplingParams(max_new_tokens=4)
    template = conv_templates["plain"]  # whose stop text no answer holds: answers end by their length
    chat = ChatSession(loaded.model, loaded.tokenizer, loaded.image_processor, template, sampling)
    chat.images = [Image.new("RGB", (16, 16))]
    return chat


def ask(chat, words, **changes):
    return chat.ask(" ".join(["w5"] * words), lambda piece: None)


@pytest.mark.parametrize("before", [0, 1, 2])
def test_ask_too_long_a_question_raises_and_the_chat_goes_on_as_before(chat, before):
    for _ in range(before):
        ask(chat, 2)
    kept = [list(message) for message in chat.conversation.messages]
    with pytest.raises(OptionError, match=r"the prompt has \d{3} tokens, image tokens included; the maximum is 255"):
        ask(chat, 300)
    assert [list(message) for message in chat.conversation.messages] == kept
    assert len(ask(chat, 2).token_ids) == 4


def test_ask_until_the_context_is_full_ends_answers_by_length_then_refuses(chat):
    chat.sampling = SamplingParams(max_new_tokens=60)
    reasons = []
    with pytest.raises(OptionError, match="start a new conversation"):
        for _ in range(10):
            reasons.append(ask(chat, 2).finish_reason)
    assert set(reasons) == {"length"} and len(reasons) >= 2
    chat.reset()
    assert len(ask(chat, 2).token_ids) == 60
