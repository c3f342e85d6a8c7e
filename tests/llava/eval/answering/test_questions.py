"""Chunks of questions, images by name, fields of records."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from llava.errors import DataError
from llava.eval.answering.questions import get_chunk, image_opener


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


def test_missing_image_is_refused_before_it_is_opened(tmp_path):
    with pytest.raises(DataError, match=r"no image 'a\.png' in --image-folder"):
        image_opener(tmp_path, "a.png")
