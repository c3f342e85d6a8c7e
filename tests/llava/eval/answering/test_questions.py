"""Chunks of questions, images by name, fields of records."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from llava.errors import DataError
from llava.eval.answering.questions import Question, get_chunk, image_opener, images_fingerprint


@given(st.lists(st.integers()), st.integers(1, 9))
def test_chunks_together_are_the_list_in_order(values, parts):
    assert [value for index in range(parts) for value in get_chunk(values, parts, index)] == values


def test_image_is_opened_only_when_called(tmp_path):
    Image.new("L", (3, 2)).save(tmp_path / "a.png")
    open_image = image_opener(tmp_path, "a.png")
    assert open_image().size == (3, 2)


def test_image_is_turned_where_it_is_asked(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png", exif=exif)
    open_image = image_opener(tmp_path, "a.png")
    assert open_image().size == (3, 2) and open_image(turn_by_exif=True).size == (2, 3)


def test_fingerprint_of_images_changes_with_each_of_them(tmp_path):
    """With its name, its size and either end; not with the folder, nor with how often an image is asked about."""
    content = bytes(range(256)) * 50

    def fingerprint(first: bytes = content, name: str = "a.png", folder: str = "images", order=(0, 1, 0, None)) -> str:
        (tmp_path / folder).mkdir(exist_ok=True)
        names = (name, "b.png")
        for image, bytes_ in zip(names, (first, b"short"), strict=True):
            (tmp_path / folder / image).write_bytes(bytes_)
        openers = [None if n is None else image_opener(tmp_path / folder, names[n]) for n in order]
        return images_fingerprint(Question(n, "q", "q", open_image) for n, open_image in enumerate(openers))

    same = fingerprint()
    assert len(same) == 16 and same == fingerprint(folder="others")
    others = [
        fingerprint(b"\1" + content[1:]),
        fingerprint(content[:-1] + b"\1"),
        fingerprint(content[:9000] + content[9001:]),
        fingerprint(name="c.png"),
        fingerprint(order=(1, 0, 0, None)),
        fingerprint(order=(0, 1, None, 0)),
    ]
    assert len({same, *others}) == 7
    assert fingerprint(order=(None, None)) == ""


def test_missing_image_is_refused_before_it_is_opened(tmp_path):
    with pytest.raises(DataError, match=r"no image 'a\.png' in --image-folder"):
        image_opener(tmp_path, "a.png")
