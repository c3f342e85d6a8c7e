"""Conversations that hold images: what is said with and without words, and the size in which images travel."""

import base64
import io

import pytest
from PIL import Image

from llava.conversation import conv_templates

IMAGE = Image.new("RGB", (40, 30), "red")


def prompt(mode, *messages):
    conversation = conv_templates[mode].copy()
    conversation.system, conversation.messages = "S", []
    for index, message in enumerate(messages):
        conversation.append_message(conversation.roles[index % 2], message)
    return conversation.get_prompt()


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("v1", "S USER: hi ASSISTANT: yes</s>USER:  ASSISTANT:"),
        ("llava_v0", "S###Human: hi###Assistant: yes###Human: ###Assistant:"),
        (
            "mpt",
            "S<|im_end|><|im_start|>user\nhi<|im_end|><|im_start|>assistant\nyes<|im_end|>"
            "<|im_start|>user\n<|im_end|><|im_start|>assistant\n",
        ),
        ("llava_llama_2", "[INST] <<SYS>>\nS\n<</SYS>>\n\nhi [/INST] yes </s><s>[INST]  [/INST]"),
    ],
)
def test_get_prompt_later_image_without_text_is_a_turn(mode, expected):
    """It ends as any other; an empty text, which nobody said, leaves the turn open."""
    assert prompt(mode, "hi", "yes", ("", IMAGE, "Default"), None) == expected
    assert prompt(mode, "hi", "yes", "", None) == prompt(mode, "hi", "yes", None, None) != expected


def test_get_prompt_first_image_without_text():
    assert prompt("v1", ("", IMAGE, "Default"), None) == "S USER: <image>\n ASSISTANT:"
    shown = "<Image><image></Image>"
    assert prompt("v0_mmtag", ("", IMAGE, "Pad")) == f"S###Human: {shown}###Assistant: Received.###Human:"


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1344, 1000), (1344, 1000)),  # small enough
        ((2000, 1000), (1344, 672)),
        ((1000, 2000), (672, 1344)),
        ((1500, 1500), (672, 672)),
        ((4000, 1000), (1344, 336)),
        ((9000, 2), (1344, 1)),  # never less than a pixel
    ],
)
def test_get_images_limits_both_sides(size, expected):
    conversation = conv_templates["v1"].copy()
    conversation.append_message("USER", ("what?", Image.new("RGB", size), "Default"))
    (image,) = conversation.get_images(return_pil=True)
    assert image.size == expected
    (text,) = conversation.get_images()
    assert Image.open(io.BytesIO(base64.b64decode(text))).size == expected


@pytest.mark.parametrize("size", [(20_000, 1), (1, 16_000), (1500, 700)])
def test_get_images_pads_thin_images_without_their_square(size, monkeypatch):
    made, new = [], Image.new
    image = new("RGB", size, "white")
    monkeypatch.setattr(Image, "new", lambda mode, size, *colour: made.append(size) or new(mode, size, *colour))
    conversation = conv_templates["v1"].copy()
    conversation.append_message("USER", ("what?", image, "Pad"))
    (padded,) = conversation.get_images(return_pil=True)
    assert padded.size == (672, 672) and max(map(max, made)) <= 2688
    assert padded.getpixel((0, 0)) == padded.getpixel((671, 671)) == (122, 116, 104)
    assert padded.getpixel((336, 336)) != (122, 116, 104)
