"""Which prompt template a question goes into: the flag, else what training wrote down, else the model's name."""

from types import SimpleNamespace

import pytest

from llava.conversation import conv_templates
from llava.errors import OptionError
from llava.generation import conversation_for


def model(**config):
    return SimpleNamespace(config=SimpleNamespace(**config))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llava-v1.5-7b", "llava_v1"),
        ("llava-llama-2-13b-chat", "llava_llama_2"),
        ("llava-v1.6-mistral-7b", "mistral_instruct"),
        ("llava-v1.6-34b", "chatml_direct"),
        ("llava-mpt-7b", "mpt"),
        ("LLaVA-Lightning-MPT-7B-preview", "mpt"),
        ("llava-mpt-v1", "llava_v1"),
        ("LLaVA-13b-delta-v0", "llava_v0"),
        ("my-model", "llava_v1"),
    ],
)
def test_conversation_for_unmarked_checkpoint_goes_by_name(name, expected):
    assert conversation_for(model(), name, None).get_prompt() == conv_templates[expected].get_prompt()


def test_conversation_for_prefers_flag_then_config_then_name():
    trained = model(conv_mode="vicuna_v1")
    assert conversation_for(trained, "llava-llama-2", None).system == conv_templates["vicuna_v1"].system
    assert conversation_for(trained, "llava-llama-2", "llava_v0").system == conv_templates["llava_v0"].system


def test_conversation_for_returns_a_copy():
    first = conversation_for(model(), "llava", None)
    first.append_message(first.roles[0], "hello")
    assert not conversation_for(model(), "llava", None).messages


def test_conversation_for_unknown_mode_raises_with_its_origin():
    with pytest.raises(OptionError, match=r"--conv-mode is 'v9'.*vicuna_v1"):
        conversation_for(model(), "llava", "v9")
    with pytest.raises(OptionError, match=r"config.json is 'v9'.*vicuna_v1"):
        conversation_for(model(conv_mode="v9"), "llava", None)
