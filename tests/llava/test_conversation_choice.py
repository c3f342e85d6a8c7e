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
def test_a_checkpoint_that_says_nothing_is_asked_by_its_name(name, expected):
    assert conversation_for(model(), name, None).get_prompt() == conv_templates[expected].get_prompt()


def test_the_flag_goes_before_the_config_and_the_config_before_the_name():
    trained = model(conv_mode="vicuna_v1")
    assert conversation_for(trained, "llava-llama-2", None).system == conv_templates["vicuna_v1"].system
    assert conversation_for(trained, "llava-llama-2", "llava_v0").system == conv_templates["llava_v0"].system


def test_what_was_asked_does_not_stay_in_the_template():
    first = conversation_for(model(), "llava", None)
    first.append_message(first.roles[0], "hello")
    assert not conversation_for(model(), "llava", None).messages


def test_an_unknown_mode_is_named_with_where_it_stands():
    with pytest.raises(OptionError, match=r"--conv-mode is 'v9'.*vicuna_v1"):
        conversation_for(model(), "llava", "v9")
    with pytest.raises(OptionError, match=r"config.json is 'v9'.*vicuna_v1"):
        conversation_for(model(conv_mode="v9"), "llava", None)
