"""The tokenizer, and the records as LLaVA's training reads them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.constants import IGNORE_INDEX
from llava.conversation import conv_templates
from llava.train.data.preprocessing import preprocess, template_of
from llava.train.data.validate import check_data
from playground.shapes.questions import EXPLAIN, LETTER, SHORT


@settings(deadline=None, max_examples=100)
@given(text=st.text())
def test_any_text_goes_round(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids) == text


def test_texts_of_the_world_go_round(world, tokenizer):
    for record in world.records("conversations.json"):
        for message in record["conversations"]:
            ids = tokenizer(message["value"]).input_ids
            assert ids[0] == tokenizer.bos_token_id == 1
            assert tokenizer.decode(ids, skip_special_tokens=True) == message["value"]


def test_special_tokens_and_phrases(tokenizer):
    assert tokenizer.convert_ids_to_tokens([0, 1, 2]) == ["<unk>", "<s>", "</s>"]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 2)
    for phrase in (conv_templates["v1"].system, SHORT, LETTER, EXPLAIN):
        assert len(tokenizer(phrase, add_special_tokens=False).input_ids) == 1, phrase


@pytest.mark.parametrize(
    ("name", "version"),
    [("conversations.json", "v1"), ("short.json", "v1"), ("texts.json", "v1"), ("captions.json", "plain")],
)
def test_records_pass_the_check_before_training(world, name, version):
    path = world.folder / name
    assert check_data(str(path), str(world.folder / "images"), template_of(version)) == len(world.records(name))


@pytest.mark.parametrize("name", ["conversations.json", "short.json", "texts.json"])
def test_exactly_the_answers_are_learned(world, tokenizer, name):
    template = template_of("v1")
    for record in world.records(name):
        messages = record["conversations"]
        sample = preprocess([messages], tokenizer, has_image="image" in record, template=template, sample=record["id"])
        labels = sample["labels"][0]
        learned = labels[labels != IGNORE_INDEX]
        expected = "".join(f" {m['value']}</s>" for m in messages if m["from"] == "gpt")
        assert tokenizer.decode(learned) == expected


def test_exactly_the_caption_is_learned_in_stage_1(world, tokenizer):
    for record in world.records("captions.json"):
        sample = preprocess([record["conversations"]], tokenizer, has_image=True, template=template_of("plain"))
        labels = sample["labels"][0]
        assert tokenizer.decode(labels[labels != IGNORE_INDEX]) == record["conversations"][1]["value"] + "\n"
