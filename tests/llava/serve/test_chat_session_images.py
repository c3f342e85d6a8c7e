"""A chat in the terminal: which way up its images are."""

import pytest
from PIL import Image

from llava.conversation import conv_templates
from llava.errors import ImageError
from llava.generation import SamplingParams
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
