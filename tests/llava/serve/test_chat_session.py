"""A chat at the end of the model's context: what is asked, what stays."""

import pytest
from PIL import Image

from llava.conversation import conv_templates
from llava.errors import OptionError
from llava.generation import SamplingParams
from llava.model.loaded_model import open_model
from llava.serve.chat_session import ChatSession


@pytest.fixture
def session(make_checkpoint):
    loaded = open_model({"model_path": str(make_checkpoint(tokenizer_model_max_length=24)), "device": "cpu"})
    loaded.model.generation_config.eos_token_id = None
    sampling = SamplingParams(max_new_tokens=4)
    template = conv_templates["plain"]  # whose stop text no answer holds: answers end by their length
    session = ChatSession(loaded.model, loaded.tokenizer, loaded.image_processor, template, sampling)
    session.images = [Image.new("RGB", (16, 16))]
    return session


def ask(session, words, **changes):
    return session.ask(" ".join(["w5"] * words), lambda piece: None)


@pytest.mark.parametrize("before", [0, 1, 2])
def test_ask_too_long_a_question_raises_and_the_chat_goes_on_as_before(session, before):
    for _ in range(before):
        ask(session, 2)
    kept = [list(message) for message in session.conversation.messages]
    with pytest.raises(OptionError, match=r"the prompt has \d{3} tokens, image tokens included; the maximum is 255"):
        ask(session, 300)
    assert [list(message) for message in session.conversation.messages] == kept
    assert len(ask(session, 2).token_ids) == 4


def test_ask_until_the_context_is_full_ends_answers_by_length_then_refuses(session):
    session.sampling = SamplingParams(max_new_tokens=60)
    reasons = []
    with pytest.raises(OptionError, match="start a new conversation"):
        for _ in range(10):
            reasons.append(ask(session, 2).finish_reason)
    assert set(reasons) == {"length"} and len(reasons) >= 2
    session.reset()
    assert len(ask(session, 2).token_ids) == 60
