"""Enough forms of every kind of question, others for tests, and nothing left to fill in."""

import random
import re

import pytest

from playground.shapes.scene import sample_scene, scene_rng
from playground.smol.captions import REQUESTS, caption
from playground.smol.conversations import conversation_record, short_record, test_question, turn
from playground.smol.questions import KINDS
from playground.smol.wordings import WORDINGS, spelled

test_question.__test__ = False  # it makes a question for a test


@pytest.mark.parametrize("kind", WORDINGS)
def test_at_least_forty_forms_and_others_for_tests(kind):
    wordings = WORDINGS[kind]
    assert len(set(wordings.training_forms)) >= 40 and len(set(wordings.test_forms)) >= 10
    assert not set(wordings.training_forms) & set(wordings.test_forms)


@pytest.mark.parametrize("kind", KINDS)
def test_every_form_can_be_filled_in(kind):
    filled = 0
    for index in range(100):
        rng = scene_rng("train", 1, index)
        scene = sample_scene(rng, "train")
        asked = rng.choice(KINDS[kind])(rng, scene)
        if asked is None:
            continue
        wordings = WORDINGS[asked.form]
        for form in (*wordings.training_forms, *wordings.test_forms):
            text, answer = turn(rng, asked, form, rng.random() < 0.5, american=rng.random() < 0.5)
            assert not re.search(r"[{}]", text + answer) and text[0].isupper() and "  " not in text
            filled += 1
    assert filled > 1000


def test_american_spelling():
    assert spelled("What colour is in the centre? Colourful, Centred", True) == (
        "What color is in the center? Colorful, Centerd"
    )
    assert spelled("What colour?", False) == "What colour?"


def test_spelling_is_one_within_a_conversation():
    british = american = 0
    for index in range(300):
        rng = scene_rng("train", 0, index)
        scene = sample_scene(rng, "train")
        text = str(conversation_record(rng, scene, "n", "i")["conversations"])
        has_british, has_american = (bool(re.search(p, text)) for p in ("olour|[Cc]entre", "olor|[Cc]enter"))
        assert not (has_british and has_american)
        british, american = british + has_british, american + has_american
    assert min(british, american) > 50


def test_captions_name_every_item():
    for index in range(100):
        scene = sample_scene(scene_rng("train", 2, index), "train")
        for length in REQUESTS:
            text = caption(scene, length).lower()
            assert all(item.name in text for item in scene.items)
        assert text.count(" is ") == len(scene.items), "the detailed one says where"


def test_records_are_conversations_about_one_image():
    for index in range(100):
        rng = scene_rng("train", 4, index)
        scene = sample_scene(rng, "train")
        for make in (conversation_record, short_record):
            messages = make(rng, scene, "n", "i.png")["conversations"]
            assert [m["from"] for m in messages] == ["human", "gpt"] * (len(messages) // 2)
            assert [m["value"].count("<image>") for m in messages] == [1] + [0] * (len(messages) - 1)
            assert all(m["value"].strip() for m in messages)


def test_test_questions_use_forms_of_their_own():
    seen = set()
    for index in range(60):
        rng = random.Random(index)
        scene = sample_scene(scene_rng("test", 0, index), "test")
        for kind in KINDS:
            record = test_question(rng, scene, kind, short=index % 2 == 0)
            if record:
                assert record["category"] == kind and record["answer"]
                seen.add(kind)
    assert seen == set(KINDS)
