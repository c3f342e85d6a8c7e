"""Conversations that hold images: what is said with and without words, and the size in which images travel."""

import base64
import io

import pytest
from PIL import Image

from llava.conversation import conv_templates, stop_text

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
        (
            "qwen_1_5",
            "S<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>\n"
            "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n",
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


@pytest.mark.parametrize(
    ("mode", "size"), [("Default", (40, 30)), ("Crop", (40, 30)), ("Resize", (336, 336)), ("Pad", (40, 40))]
)
def test_process_image_makes_one_image_as_get_images_does(mode, size):
    conversation = conv_templates["v1"].copy()
    image = conversation.process_image(IMAGE, mode, return_pil=True)
    assert image.size == size
    opened = Image.open(io.BytesIO(base64.b64decode(conversation.process_image(IMAGE, mode, image_format="JPEG"))))
    assert (opened.format, opened.size) == ("JPEG", size)
    conversation.append_message("USER", ("what?", IMAGE, mode))
    assert conversation.get_images() == [conversation.process_image(IMAGE, mode)]


def test_process_image_takes_other_limits_and_refuses_other_modes():
    conversation = conv_templates["v1"]
    assert conversation.process_image(Image.new("RGB", (200, 100)), "Default", True, max_len=80, min_len=20).size == (
        40,
        20,
    )
    with pytest.raises(ValueError, match="image process mode is 'Squash'"):
        conversation.process_image(IMAGE, "Squash")


@pytest.mark.parametrize("mode", ["qwen_1_5", "qwen_2"])
def test_qwen_prompts_are_those_that_llava_next_trained_with(mode):
    conversation = conv_templates[mode].copy()
    conversation.append_message(conversation.roles[0], "<image>\nWhat is shown in this image?")
    conversation.append_message(conversation.roles[1], None)
    assert conversation.get_prompt() == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<image>\nWhat is shown in this "
        "image?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert stop_text(conversation) == "<|im_end|>"


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
