"""Prompts, pixels and stopping, where the recorded answers say nothing."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import CLIPImageProcessorPil

from llava.errors import CheckpointError
from llava.mm_utils import (
    KeywordsStoppingCriteria,
    expand2square,
    get_anyres_image_grid_shape,
    process_images,
    resize_and_pad_image,
    tokenizer_image_token,
)


class Letters:
    """One id a letter; with or without an id in front."""

    def __init__(self, bos):
        self.bos_token_id = 1 if bos else None

    def __call__(self, text):
        front = [] if self.bos_token_id is None else [1]
        return SimpleNamespace(input_ids=front + [ord(letter) for letter in text])

    def batch_decode(self, rows, skip_special_tokens=True):
        return ["".join(chr(i) for i in row.tolist() if i > 31) for row in rows]


@given(pieces=st.lists(st.text(alphabet="ab c"), min_size=1, max_size=5), bos=st.booleans())
def test_tokenizer_image_token_replaces_each_tag(pieces, bos):
    """The ids of the whole prompt, with each tag's letters taken out and one number put in."""
    expected = [1] if bos else []
    for order, piece in enumerate(pieces):
        expected += [-7] * (order > 0) + [ord(letter) for letter in piece]
    assert tokenizer_image_token("<image>".join(pieces), Letters(bos), image_token_index=-7) == expected


def test_tokenizer_image_token_of_unknown_tensor_type_raises():
    with pytest.raises(ValueError, match="tf"):
        tokenizer_image_token("a", Letters(True), return_tensors="tf")


@given(width=st.integers(1, 30), height=st.integers(1, 30))
def test_expand2square_centres_the_image(width, height):
    image = Image.new("RGB", (width, height), (9, 8, 7))
    square = np.asarray(expand2square(image, (1, 2, 3)))
    side = max(width, height)
    assert square.shape == (side, side, 3)
    assert (square == (9, 8, 7)).all(axis=-1).sum() == width * height
    top, left = (side - height) // 2, (side - width) // 2
    assert (square[top : top + height, left : left + width] == (9, 8, 7)).all()


def processor(side=8):
    return CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


def noise(*sizes):
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]


def test_process_images_by_aspect_ratio():
    images = noise((10, 20), (20, 10))
    for mode in ("pad", "square", None):
        assert process_images(images, processor(), SimpleNamespace(image_aspect_ratio=mode)).shape == (2, 3, 8, 8)
    assert process_images(images, processor(), SimpleNamespace()).shape == (2, 3, 8, 8)


@pytest.mark.parametrize("aspect", ["pad", "square", "anyres"])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "P", "1"])
def test_process_images_of_other_modes_are_as_rgb(mode, aspect):
    """Pixels are those of the image in RGB: transparency is dropped, not laid on white."""
    noise = np.random.RandomState(0).randint(0, 256, (8, 12, 4), dtype=np.uint8)
    image = Image.fromarray(noise, "RGBA")
    image = image if mode == "RGBA" else image.convert("RGB").convert(mode)
    # The processor's size is the image's: under anyres nothing is resized either but the whole, to 12 by 12.
    crop, size = {"height": 12, "width": 12}, {"shortest_edge": 12}
    processor = CLIPImageProcessorPil(do_resize=False, crop_size=crop, size=size)
    config = SimpleNamespace(image_aspect_ratio=aspect, image_grid_pinpoints=[[12, 12]])
    pixels = process_images([image], processor, config)
    expected = process_images([image.convert("RGB")], processor, config)
    # Crops are resized before they lose their mode, as ever; here no crop is.
    assert torch.equal(pixels[:, 1:], expected[:, 1:]) if aspect == "anyres" else torch.equal(pixels, expected)


def test_process_images_anyres_crops_may_differ():
    config = SimpleNamespace(image_aspect_ratio="anyres", image_grid_pinpoints=[[8, 16], [16, 16]])
    tall, square = process_images(noise((10, 20), (20, 20)), processor(), config)
    assert tall.shape == (3, 3, 8, 8)
    assert square.shape == (5, 3, 8, 8)
    assert process_images(noise((20, 20), (16, 16)), processor(), config).shape == (2, 5, 3, 8, 8)


def test_grid_pinpoints_as_text_or_unusable():
    assert get_anyres_image_grid_shape((20, 20), "[(8, 16), (16, 16)]", 8) == (2, 2)
    with pytest.raises(CheckpointError, match="image_grid_pinpoints"):
        get_anyres_image_grid_shape((20, 20), "[(8, 16", 8)
    with pytest.raises(CheckpointError, match="empty"):
        get_anyres_image_grid_shape((20, 20), [], 8)


@given(width=st.integers(1, 99), height=st.integers(1, 99), across=st.integers(1, 50), down=st.integers(1, 50))
def test_resize_and_pad_image_fills_one_side(width, height, across, down):
    fitted = np.asarray(resize_and_pad_image(Image.new("RGB", (width, height), "white"), (across, down)))
    assert fitted.shape == (down, across, 3)
    white = fitted.all(axis=-1)
    assert white.any(axis=0).all() or white.any(axis=1).all()


def test_stopping_criteria_look_at_new_tokens_alone():
    """``generate`` from embeddings shows the criterion the new tokens only, without the prompt."""
    prompt = torch.tensor([[1, *b"a long prompt"]])
    stop = KeywordsStoppingCriteria(["###"], Letters(True), prompt)
    assert not stop(torch.tensor([list(b"yes")]), None)
    assert not stop(torch.tensor([list(b"yes##")]), None)
    assert stop(torch.tensor([list(b"yes###")]), None)
    assert not stop(torch.tensor([list(b"yes###"), list(b"no, no")]), None)
    assert stop(torch.tensor([list(b"yes###"), list(b"no!###")]), None)
    assert stop.call_for_batch(torch.tensor([list(b"yes###")]), None)
    assert not stop.call_for_batch(output_ids=torch.tensor([list(b"yes##")]), scores=None)
