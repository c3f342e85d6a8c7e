"""Chats rendered by templates, against prompts written out by hand; chats that cannot be rendered."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


CHATML = "<|im_start|>system\nAnswer the questions.<|im_end|>"
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
PROMPTS |= {
    "an empty answer": (
        "v1",
        [("user", "One?"), ("assistant", ""), ("user", "Two?")],
        f"{USER} USER: One?\nTwo? ASSISTANT:",
        "</s>",
    ),
    "an answer of spaces at the end": (
        "v1",
        [("user", "One?"), ("assistant", " \n")],
        f"{USER} USER: One? ASSISTANT:",
        "</s>",
    ),
    "an answer that is null": ("v1", [("user", "One?"), ("assistant", None)], f"{USER} USER: One? ASSISTANT:", "</s>"),
    "an answer without parts": ("v1", [("assistant", []), ("user", "One?")], f"{USER} USER: One? ASSISTANT:", "</s>"),
    "an answer in parts": (
        "v1",
        [("user", "One?"), ("assistant", parts("Two", "three.")), ("user", "Four?")],
        f"{USER} USER: One? ASSISTANT: Two\nthree.</s>USER: Four? ASSISTANT:",
        "</s>",
    ),
    "a refusal as a part": (
        "v1",
        [("user", "One?"), ("assistant", [{"type": "refusal", "refusal": "No."}]), ("user", "Two?")],
        f"{USER} USER: One? ASSISTANT: No.</s>USER: Two? ASSISTANT:",
        "</s>",
    ),
    "an image tag that the model wrote": (
        "v1",
        [("user", "One?"), ("assistant", "a <im<image>age> b"), ("user", "Two?")],
        f"{USER} USER: One? ASSISTANT: a  b</s>USER: Two? ASSISTANT:",
        "</s>",
    ),
    "an empty system message": ("v1", [("system", ""), ("user", "One?")], f"{USER} USER: One? ASSISTANT:", "</s>"),
    "a system message without content": (
        "v1",
        [("system", None), ("user", "One?")],
        f"{USER} USER: One? ASSISTANT:",
        "</s>",
    ),
    "an empty and another system message": (
        "v1",
        [("system", " "), ("developer", "Be."), ("user", "One?")],
        "Be. USER: One? ASSISTANT:",
        "</s>",
    ),
    "the assistant first": (
        "v1",
        [("assistant", "Hello."), *TURNS],
        f"{USER} ASSISTANT: Hello.</s>USER: One? ASSISTANT: Two.</s>USER: Three? ASSISTANT:",
        "</s>",
    ),
    "the assistant first, chatml": (
        "chatml_direct",
        [("assistant", "Hello."), ("user", "One?")],
        "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>assistant\nHello.<|im_end|>"
        "<|im_start|>user\nOne?<|im_end|><|im_start|>assistant\n",
        "<|im_end|>",
    ),
    "the assistant last": ("v1", TURNS[:2], f"{USER} USER: One? ASSISTANT: Two.", "</s>"),
    "the assistant last, twice": (
        "v1",
        [*TURNS[:2], ("assistant", "s \n")],
        f"{USER} USER: One? ASSISTANT: Two.\ns",
        "</s>",
    ),
    "the assistant last, a separator's letter": (
        "v1",
        [("user", "One?"), ("assistant", "s")],
        f"{USER} USER: One? ASSISTANT: s",
        "</s>",
    ),
    "the assistant last, mistral": ("mistral_instruct", TURNS[:2], "[INST] One? [/INST] Two.", "</s>"),
    "the assistant last, chatml": (
        "chatml_direct",
        TURNS[:2],
        f"{CHATML}<|im_start|>user\nOne?<|im_end|><|im_start|>assistant\nTwo.",
        "<|im_end|>",
    ),
    "the assistant last, plain": ("plain", [("user", "One?"), ("assistant", "Two")], "One?\nTwo", "\n"),
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
        ([("system", "a")], "no message of the role 'user'"),
        ([("assistant", "a")], "no message of the role 'user'"),
        ([("assistant", ""), ("system", "")], "no message of the role 'user'"),
        ([("user", [])], "messages.0: the message is empty"),
        ([("user", None)], "messages.0: the message is empty"),
        ([("user", "a"), ("user", " ")], "messages.1: the message is empty"),
        ([("user", "a"), ("tool", "3")], "messages.1: it is about a tool .role 'tool'.*calls none"),
        ([("function", "3"), ("user", "a")], "messages.0: it is about a tool"),
        ([("user", "what is <image>?")], "messages.0: the text holds '<image>'"),
        ([("system", parts(URL)), ("user", "a")], "messages.0: an image in a message of the role 'system'"),
        ([("user", "a"), ("assistant", parts(URL)), ("user", "b")], "messages.1: an image"),
    ],
)
def test_render_prompt_bad_chat_names_the_message(turns, words) -> None:
    with pytest.raises(OptionError, match=words):
        render_prompt(chat(*turns), conv_templates["v1"])


def test_render_prompt_llama_2_refuses_a_chat_that_the_assistant_begins() -> None:
    with pytest.raises(OptionError, match="begins with the assistant"):
        render_prompt(chat(("assistant", "Hello."), ("user", "One?")), conv_templates["llava_llama_2"])


@pytest.mark.parametrize("extra", [{"tool_calls": [{"id": "1"}]}, {"function_call": {"name": "f"}}])
def test_render_prompt_refuses_an_answer_that_calls_a_tool(extra) -> None:
    turns = [Message(role="user", content="a"), Message(role="assistant", content=None, **extra)]
    with pytest.raises(OptionError, match="it is about a tool"):
        render_prompt(turns, conv_templates["v1"])


def test_render_prompt_takes_a_refusal_in_place_of_the_content() -> None:
    turns = [
        Message(role="user", content="a"),
        Message(role="assistant", refusal="No."),
        Message(role="user", content="b"),
    ]
    assert render_prompt(turns, conv_templates["v1"]).prompt == f"{USER} USER: a ASSISTANT: No.</s>USER: b ASSISTANT:"


MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "user", "user", "assistant", "assistant", "tool"])},
    optional={
        "content": st.none()
        | st.sampled_from(["", " ", "a", "<image>", "</s>", "[INST]", "\n", "s"])
        | st.lists(
            st.sampled_from(
                [
                    {"type": "text", "text": "a"},
                    {"type": "text", "text": ""},
                    {"type": "refusal", "refusal": "no"},
                    {"type": "image_url", "image_url": {"url": URL}},
                ]
            ),
            max_size=2,
        ),
        "refusal": st.none() | st.sampled_from(["", "no"]),
        "tool_calls": st.none() | st.just([]),
        "name": st.just("x"),
    },
)


@settings(deadline=None, max_examples=300)
@given(messages=st.lists(MESSAGE, min_size=1, max_size=5), name=st.sampled_from(sorted(conv_templates)))
def test_render_prompt_of_any_chat_is_a_prompt_or_a_user_error(messages, name) -> None:
    """With a tag for each image, all texts of the user in order, and the model's turn open at the end."""
    parsed = [Message(**message) for message in messages]
    try:
        got = render_prompt(parsed, conv_templates[name])
    except OptionError:
        return
    assert got.prompt.count("<image>") == len(got.image_urls)
    assert any(message.role == "user" for message in parsed)
    last = parsed[-1]
    if last.role == "assistant" and last.content == "a":
        assert got.prompt.endswith("a")
