"""Preprocessing under upstream's names: by the template that llava.conversation has as its default."""

import pytest
import torch

from llava import conversation
from llava.conversation import conv_templates
from llava.errors import OptionError
from llava.train import train

SOURCES = [
    [{"from": "human", "value": "<image>\nw5 w6"}, {"from": "gpt", "value": "w7"}],
    [{"from": "human", "value": "w5 <image>"}, {"from": "gpt", "value": "w7 w8 w9"}],
]


@pytest.fixture
def tokenizer(tiny_tokenizer):
    made = tiny_tokenizer()
    made.model_max_length = 512
    made.add_tokens(["[/INST]", "[INST]", "</s>", "<|im_start|>", "<|im_end|>", "ASSISTANT:", "user", "assistant"])
    return made


@pytest.mark.parametrize("name", ["v1", "llava_v1"])
def test_preprocess_follows_the_default_conversation(tokenizer, monkeypatch, name):
    monkeypatch.setattr(conversation, "default_conversation", conv_templates[name])
    by_style = train.preprocess_v1(SOURCES, tokenizer, has_image=True)
    by_default = train.preprocess(SOURCES, tokenizer, has_image=True)
    for key in ("input_ids", "labels"):
        assert by_style[key].shape[0] == 2
        assert torch.equal(by_style[key], by_default[key])
    assert by_style["labels"][0, -1] == -100, "the shorter one is padded, which is not trained on"


def test_templates_differ(tokenizer, monkeypatch):
    found = []
    for name in ("v1", "plain", "v0"):
        monkeypatch.setattr(conversation, "default_conversation", conv_templates[name])
        found.append(train.preprocess(SOURCES[:1], tokenizer, has_image=True)["input_ids"][0].tolist())
    assert len({tuple(ids) for ids in found}) == 3


def test_plain_trains_on_the_caption_alone(tokenizer, monkeypatch):
    monkeypatch.setattr(conversation, "default_conversation", conv_templates["plain"])
    found = train.preprocess_plain(SOURCES, tokenizer)
    assert [ids.tolist() for ids in found["input_ids"]] == [[1, -200, 7], [1, -200, 7, 8, 9]]
    assert [labels.tolist() for labels in found["labels"]] == [[-100, -100, 7], [-100, -100, 7, 8, 9]]


@pytest.mark.parametrize("function", [train.preprocess_llama_2, train.preprocess_mpt])
def test_preprocess_of_another_style_raises(tokenizer, function):
    message = f"{function.__name__} needs a template .*default_conversation has TWO"
    with pytest.raises(OptionError, match=message):
        function(SOURCES, tokenizer)
