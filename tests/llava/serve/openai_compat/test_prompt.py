"""Chats rendered by templates, against prompts written out by hand; chats that cannot be rendered."""

import pytest

from llava.conversation import conv_templates
from llava.errors import OptionError
from llava.serve.openai_compat.prompt import render_prompt
from llava.serve.openai_compat.schemas import Message

URL = "data:image/png;base64,AAAA"
USER = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)


def chat(*turns) -> list[Message]:
    return [Message(role=role, content=content) for role, content in turns]


def parts(*parts) -> list[dict]:
    return [
        {"type": "image_url", "image_url": {"url": part}}
        if part.startswith("data:")
        else {"type": "text", "text": part}
        for part in parts
    ]


TURNS = (("user", "One?"), ("assistant", "Two."), ("user", "Three?"))
SYSTEM = (("system", "Be"), ("developer", "brief."))
# name: (template, turns, prompt, stop)
PROMPTS = {
    "vicuna": ("v1", TURNS, f"{USER} USER: One? ASSISTANT: Two.</s>USER: Three? ASSISTANT:", "</s>"),
    "system": ("v1", (*SYSTEM, ("user", "One?")), "Be\nbrief. USER: One? ASSISTANT:", "</s>"),
    "an image": ("v1", [("user", parts("One?", URL))], f"{USER} USER: <image>\nOne? ASSISTANT:", "</s>"),
    "an image alone": ("v1", [("user", parts(URL))], f"{USER} USER: <image>\n ASSISTANT:", "</s>"),
    "two texts, two images": (
        "v1",
        [("user", parts(URL, "One?", URL, "Two?"))],
        f"{USER} USER: <image>\n<image>\nOne?\nTwo? ASSISTANT:",
        "</s>",
    ),
    "an image in a later turn": (
        "v1",
        (*TURNS[:2], ("user", parts(URL, "Three?"))),
        f"{USER} USER: One? ASSISTANT: Two.</s>USER: <image>\nThree? ASSISTANT:",
        "</s>",
    ),
    "two in a row": ("v1", [("user", "One."), ("user", "Two?")], f"{USER} USER: One.\nTwo? ASSISTANT:", "</s>"),
    "mistral": ("mistral_instruct", TURNS, "[INST] One? [/INST] Two. </s>[INST] Three? [/INST]", "</s>"),
    "llama 2": (
        "llava_llama_2",
        (*SYSTEM, *TURNS),
        "[INST] <<SYS>>\nBe\nbrief.\n<</SYS>>\n\nOne? [/INST] Two. </s><s>[INST] Three? [/INST]",
        "</s>",
    ),
    "chatml": (
        "chatml_direct",
        (*SYSTEM, ("user", "One?")),
        "<|im_start|>system\nBe\nbrief.<|im_end|><|im_start|>user\nOne?<|im_end|><|im_start|>assistant\n",
        "<|im_end|>",
    ),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_render_prompt_gives_the_templates_text_and_stop(name) -> None:
    template, turns, prompt, stop = PROMPTS[name]
    got = render_prompt(chat(*turns), conv_templates[template])
    assert got.prompt == prompt and got.stop == stop
    assert len(got.image_urls) == prompt.count("<image>")


def test_render_prompt_keeps_the_order_of_images() -> None:
    turns = [("user", parts("data:1", "a", "data:2")), ("assistant", "b"), ("user", parts("data:3"))]
    assert render_prompt(chat(*turns), conv_templates["v1"]).image_urls == ("data:1", "data:2", "data:3")


def test_render_prompt_leaves_the_template_unchanged() -> None:
    template = conv_templates["v1"]
    render_prompt(chat(*SYSTEM, *TURNS), template)
    assert template.messages == [] and template.system == USER


@pytest.mark.parametrize(
    ("turns", "words"),
    [
        ([("system", "a")], "begins and ends"),
        ([("assistant", "a"), ("user", "b")], "begins and ends"),
        ([("user", "a"), ("assistant", "b")], "begins and ends"),
        ([("user", "a"), ("assistant", " ")], "messages.1: the message is empty"),
        ([("user", [])], "messages.0: the message is empty"),
        ([("user", "what is <image>?")], "messages.0: the text holds '<image>'"),
        ([("system", parts(URL)), ("user", "a")], "messages.0: an image in a message of the role 'system'"),
        ([("user", "a"), ("assistant", parts(URL)), ("user", "b")], "messages.1: an image"),
    ],
)
def test_render_prompt_bad_chat_names_the_message(turns, words) -> None:
    with pytest.raises(OptionError, match=words):
        render_prompt(chat(*turns), conv_templates["v1"])
