"""Every template's prompts, byte for byte."""

import json

import pytest

from llava.conversation import SeparatorStyle, conv_templates, default_conversation

LLAVA_NEXTS = {"qwen_1_5", "qwen_2"}  # templates that upstream LLaVA does not have


def test_templates_and_prompts(golden) -> None:
    data = json.loads((golden / "conversation.json").read_text())
    assert set(conv_templates) == set(data["templates"]) | LLAVA_NEXTS
    assert all(conv_templates[k] is default_conversation for k in data["default_conversation_key_equals"])
    for key, expected in data["templates"].items():
        template = conv_templates[key]
        assert template.system == expected["system"]
        assert list(template.roles) == expected["roles"]
        assert template.sep_style is SeparatorStyle[expected["sep_style"]]
        assert (template.sep, template.sep2) == (expected["sep"], expected["sep2"])
        assert (template.version, template.offset) == (expected["version"], expected["offset"])
        assert template.messages == expected["preset_messages"]
        assert all(conv_templates[other] is template for other in expected["same_object_as"])
        # A prompt whose dialogue the folder does not hold, such as one with an open image, cannot be worded again.
        known = {name: prompt for name, prompt in expected["prompts"].items() if name in data["dialogues"]}
        assert known, f"no prompt of {key} has its dialogue in the folder"
        for name, prompt in known.items():
            conversation = template.copy()
            for who, message in data["dialogues"][name]:
                message = tuple(message) if isinstance(message, list) else message  # (text, image, mode): JSON's list
                conversation.append_message(template.roles[who == "assistant"], message)
            if isinstance(prompt, dict):  # the reference adds a None separator and fails; ours adds nothing
                assert conversation.get_prompt()
            else:
                assert conversation.get_prompt() == prompt, (key, name)
            assert template.messages == expected["preset_messages"], "a copy leaves its template alone"


def test_conversations_of_llama_2_begin_with_the_user() -> None:
    conversation = conv_templates["llama_2"].copy()
    conversation.append_message(conversation.roles[1], "Hello")
    with pytest.raises(ValueError, match="begins with"):
        conversation.get_prompt()
