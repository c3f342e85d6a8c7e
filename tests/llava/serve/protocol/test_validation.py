"""The message about a body that does not fit: fields by where they are, and what was expected there."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from llava.serve.openai_compat.schemas import chat_model
from llava.serve.protocol.validation import describe_problems
from llava.serve.worker.app import request_model

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "w5"}]}


def described(model, body: object) -> tuple[str, str | None]:
    """Message and field, of problems as FastAPI gives them."""
    with pytest.raises(ValidationError) as raised:
        model.model_validate(body)
    return describe_problems([{**one, "loc": ("body", *one["loc"])} for one in raised.value.errors()], body)


def content(*parts: object) -> dict:
    return {**CHAT, "messages": [{"role": "user", "content": list(parts)}]}


ROLES = "'system', 'developer', 'user', 'assistant', 'tool' or 'function'"
# body -> message about it
CHATS = [
    ({}, "model is missing; messages is missing"),
    ({**CHAT, "messages": "w"}, "messages: expected a list"),
    ({**CHAT, "messages": []}, "messages: expected at least 1 item, not 0"),
    ({**CHAT, "messages": ["w"]}, "messages.0: expected an object"),
    ({**CHAT, "messages": [{"content": "w"}]}, "messages.0.role is missing"),
    ({**CHAT, "messages": [{"role": "body", "content": "w"}]}, f'messages.0.role is "body": expected {ROLES}'),
    ({**CHAT, "messages": [{"role": "user", "content": 5}]}, "messages.0.content is 5: expected a text or a list"),
    ({**CHAT, "messages": [{"role": "user", "content": {}}]}, "messages.0.content: expected a text or a list"),
    (
        content({"type": "audio"}),
        "messages.0.content.0.type is \"audio\": expected one of 'text', 'image_url', 'refusal'",
    ),
    (content({"text": "w"}), "messages.0.content.0.type is missing"),
    (content({"type": "text"}), "messages.0.content.0.text is missing"),
    (content({"type": "text", "text": 5}), "messages.0.content.0.text is 5: expected a text"),
    (content({"type": "text", "text": "\ud800"}), "messages.0.content.0.text: the text holds half of a surrogate pair"),
    (content({"type": "image_url"}), "messages.0.content.0.image_url is missing"),
    (content({"type": "image_url", "image_url": "w"}), "messages.0.content.0.image_url: expected an object"),
    (
        content("w", {"type": "text"}),
        "messages.0.content.0: expected an object; messages.0.content.1.text is missing",
    ),
    ({**CHAT, "stop": 5}, "stop is 5: expected a text or a list"),
    ({**CHAT, "stop": ["a"] * 5}, "stop: expected at most 4 items, not 5"),
    ({**CHAT, "stop": ["a", 5]}, "stop.1 is 5: expected a text"),
    ({**CHAT, "temperature": "hot"}, "temperature: expected a number"),
    ({**CHAT, "temperature": 3}, "temperature is 3: expected a value less than or equal to 2"),
    ({**CHAT, "top_p": float("nan")}, "top_p is NaN: expected a finite number"),
    ({**CHAT, "max_tokens": 1.5}, "max_tokens is 1.5: expected an integer"),
    ({**CHAT, "stream": "maybe"}, "stream: expected true or false"),
    ({**CHAT, "model": "a\nb"}, "model: expected a text without control characters"),
    ({**CHAT, "model": "m" * 301}, "model: expected at most 300 characters"),
    ([], "the body: expected an object"),
    (None, "the body is null: expected an object"),
]


@pytest.mark.parametrize(("body", "message"), CHATS, ids=range(len(CHATS)))
def test_describe_problems_of_a_chat_names_field_value_and_expectation(body, message) -> None:
    found, field = described(chat_model(), body)
    assert found == message
    assert field == (None if message.startswith("the body") else message.split(maxsplit=1)[0].split(".")[0].rstrip(":"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": ""}, "prompt: expected at least 1 character"),
        ({"images": "w"}, "images: expected a list"),
        ({"images": ["w", 5]}, "images.1 is 5: expected a text"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0: expected a value greater than or equal to 1"),
        ({"repetition_penalty": "w" * 80}, "repetition_penalty: expected a number"),
    ],
)
def test_describe_problems_of_a_workers_request_says_the_same_way(fields, message) -> None:
    assert described(request_model(), {"prompt": "w5", **fields})[0] == message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "image_url", "url", "body"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)
FIELDS = ["model", "messages", "temperature", "stop", "stream_options", "latency_budget", "seed", "top_k"]


@settings(deadline=None, max_examples=200)
@given(body=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5) | JSON)
def test_describe_problems_shows_only_names_of_the_body(body) -> None:
    try:
        chat_model().model_validate(body)
    except ValidationError as error:
        message, field = describe_problems([{**one, "loc": ("body", *one["loc"])} for one in error.errors()], body)
        assert message and len(message) < 1500 and json.dumps(message).isascii()
        for inner in ("function-", "tagged-union", "list[", "str]", "constrained", "Input should"):
            assert inner not in message
        assert field is None or field in [*FIELDS, "role", "content", "type", "text", "image_url", "url", "body"]
