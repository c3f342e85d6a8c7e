"""Every answer, recounted by a slow oracle that reads the question's words and looks at the scene's items."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

import pytest

from playground.shapes.captions import REQUESTS
from playground.shapes.conversations import draw_questions
from playground.shapes.questions import EXPLAIN, KINDS, LETTER, SHORT, normalise, side, where
from playground.shapes.scene import COLOURS, SHAPES, SIZES, Item, Scene, sample_scene, scene_rng

WRITTEN = {
    "word": ("What word is written in the picture?", "What does the text say?", "Read the word."),
    "digit": ("Which digit is in the picture?", "What number is shown?", "Read the digit."),
}
FORMS = {  # what the question asks for -> its wordings
    "there": (r"Is there an? (.+) in the picture\?", r"Can you see an? (.+)\?", r"Does the picture show an? (.+)\?"),
    "colour": (r"What colour is the (.+)\?", r"Which colour does the (.+) have\?", r"The (.+) is of what colour\?"),
    "name": (r"What shape is (\w+)\?", r"Which shape is the (.+) object\?", r"What is the shape of the (.+) object\?"),
    "size": (r"What size is the (.+)\?", r"Is the (.+) small or large\?", r"How big is the (.+)\?"),
    "number": (
        r"How many (.+) are there\?",
        r"Count the (.+)\.",
        r"What is the number of (.+)\?",
        r"How many (.+) can you see\?",
    ),
    "side": (
        r"Is the (.+) (left or right of|above or below) the (.+)\?",
        r"Would you say the (.+) is (left or right of|above or below) the (.+)\?",
    ),
    "relation": (
        r"Is the (.+) (left of|right of|above|below) the (.+)\?",
        r"Would you say the (.+) is (left of|right of|above|below) the (.+)\?",
        r"Can one find the (.+) (left of|right of|above|below) the (.+)\?",
    ),
    "place": (r"Where is the (.+)\?", r"In which place is the (.+)\?", r"Where in the picture is the (.+)\?"),
    "more": (r"Are there more (.+) than (.+)\?", r"Do (.+) outnumber (.+)\?"),
    "which": (r"Which are there more of, (.+) or (.+)\?", r"What is more frequent, (.+) or (.+)\?"),
}


def meant(scene: Scene, phrase: str) -> list[Item]:
    """The shapes that a phrase such as "small red stars" means."""
    found = [item for item in scene.items if item.kind == "shape"]
    for word in phrase.split():
        single = {"crosses": "cross", **{f"{n}s": n for n in SHAPES}}.get(word, word)
        if single in SIZES:
            found = [i for i in found if i.size == single]
        elif single in COLOURS:
            found = [i for i in found if i.colour == single]
        elif single in SHAPES:
            found = [i for i in found if i.name == single]
        else:
            assert single in ("object", "objects"), f"unknown word {word!r} in {phrase!r}"
    return found


def the(scene: Scene, phrase: str) -> Item:
    (item,) = meant(scene, phrase)  # "the" promises that there is one
    return item


def read(text: str) -> tuple[str, tuple[str, ...]]:
    for asked, wordings in FORMS.items():
        for wording in wordings:
            if match := re.fullmatch(wording, text):
                return asked, match.groups()
    raise AssertionError(f"the oracle cannot read {text!r}")


def answer_to(scene: Scene, text: str) -> str:
    """The right answer to a question without its instruction."""
    text, *options = text.split("\n")
    if options:
        right = answer_to(scene, text)
        (letter,) = [line[0] for line in options if line[3:] == right]
        return letter
    for kind, wordings in WRITTEN.items():
        if text in wordings:
            (item,) = [i for i in scene.items if i.kind == kind]
            return item.name
    asked, words = read(text)
    if asked == "there":
        return "yes" if meant(scene, words[0]) else "no"
    if asked in ("colour", "name", "size"):
        return getattr(the(scene, words[0]), asked)
    if asked == "number":
        return str(len(meant(scene, words[0])))
    if asked == "side":
        a, b = the(scene, words[0]), the(scene, words[2])
        if words[1] == "above or below":
            return "above" if a.y < b.y else "below"
        return "left" if a.x < b.x else "right"
    if asked == "relation":
        a, b = the(scene, words[0]), the(scene, words[2])
        gap = {"left of": b.x - a.x, "right of": a.x - b.x, "above": b.y - a.y, "below": a.y - b.y}[words[1]]
        assert abs(gap) >= 20, "too close to tell"
        return "yes" if gap > 0 else "no"
    if asked == "place":
        item = the(scene, words[0])
        return f"{('top', 'middle', 'bottom')[item.y // 32]} {('left', 'centre', 'right')[item.x // 32]}"
    counts = [len(meant(scene, phrase)) for phrase in words]
    assert counts[0] != counts[1]
    if asked == "more":
        return "yes" if counts[0] > counts[1] else "no"
    return words[counts.index(max(counts))]


def answered(text: str, answer: str) -> tuple[str, str]:
    """A turn without its instruction, where it has one, and the verdict of its answer."""
    text = text.removeprefix("<image>\n")
    question, _, instruction = text.rpartition("\n")
    if instruction not in (SHORT, LETTER, EXPLAIN):
        return text, answer
    return question, answer.rpartition("So: ")[2] if instruction == EXPLAIN else answer


def turns(record):
    messages = [m["value"] for m in record["conversations"]]
    return zip(messages[::2], messages[1::2], strict=True)


def is_request(text: str) -> bool:
    return text.removeprefix("<image>\n") in REQUESTS


def test_every_test_question_is_right(world):
    for split in ("validation", "test"):
        for record in world.records(f"{split}.jsonl"):
            text, answer = answered(record["text"], record["answer"])
            assert text != record["text"], "tests say how to answer"
            assert answer_to(world.scenes[record["image"]], text) == answer, record


@pytest.mark.parametrize(("name", "minimum"), [("conversations.json", 500), ("texts.json", 500), ("short.json", 100)])
def test_every_training_turn_is_right(world, name, minimum):
    seen = bare = 0
    for record in world.records(name):
        scene = world.scenes[record["id"] + ".png"]
        for text, answer in turns(record):
            if is_request(text):
                continue
            if name == "texts.json" and begins_with_scene(text):
                text = text.partition("\n")[2]
            question, verdict = answered(text, answer)
            assert answer_to(scene, question) == verdict, (record["id"], text, answer)
            seen += 1
            bare += question == text.removeprefix("<image>\n")
    assert seen > minimum
    assert 0.03 < bare / seen < 0.17, "some are asked as people ask"


def begins_with_scene(text: str) -> bool:
    """Does this turn begin with the scene in words?"""
    return re.match(r"(A (small|large) |The (word|digit) )", text) is not None


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("kind", [*KINDS, "where", "side"])
def test_many_questions_of_every_kind(kind, split):
    """More than a world of a test's size holds: answers, balance, and wordings."""
    answers, wordings = Counter(), defaultdict(int)
    for index in range(400):
        rng = scene_rng(split, 11, index)
        scene = sample_scene(rng, split)
        question = {**KINDS, "where": where, "side": side}[kind](rng, scene)
        if question is None:
            continue
        assert question.kind == kind
        assert answer_to(scene, question.text) == question.answer, question
        answers[question.answer] += 1
        names = "|".join((*COLOURS, "crosses", *SHAPES, *SIZES, "objects", "left", "right", "above", "below"))
        wordings[re.sub(rf"\ban?\b (?=\w)|\b({names})s?\b", "_", question.text.split("\n")[0])] += 1
    total = answers.total()
    assert total >= 100, "nearly every scene allows nearly every question"
    plain = {re.sub("[_ ]+", " ", wording) for wording in wordings}
    assert len(plain) >= {"compare": 4, "side": 2}.get(kind, 3), plain
    assert answers.most_common(1)[0][1] <= 0.6 * total, "no answer may pay off by itself"


def test_reasoned_answers_name_what_is_in_the_image(world):
    """Items in an evidence are the caption's, counts are the oracle's."""
    captions = {r["id"]: r["conversations"][1]["value"] for r in world.records("captions.json")}
    items = counts = 0
    for record in world.records("conversations.json"):
        scene = world.scenes[record["image"]]
        for _, answer in turns(record):
            evidence, reasoned, _ = answer.partition(" So: ")
            if not reasoned:
                continue
            for item in re.findall(r"(?:small|large) \w+ \w+ at the \w+ \w+", evidence):
                assert f"A {item}." in captions[record["id"]]
                items += 1
            for phrase, number in re.findall(r"([\w ]+): (\d)", evidence):
                assert len(meant(scene, phrase.strip())) == int(number)
                counts += 1
    assert items > 5 and counts > 5


def test_captions_name_every_item_and_its_position(world):
    rows, columns = ("top", "middle", "bottom"), ("left", "centre", "right")
    for record in world.records("captions.json"):
        sentences = record["conversations"][1]["value"].rstrip(".").split(". ")
        expected = []
        for item in sorted(world.scenes[record["image"]].items, key=lambda i: (i.y // 32, i.x)):
            shape = f"A {item.size} {item.colour} {item.name}"
            what = shape if item.kind == "shape" else f"The {item.kind} {item.name} in {item.colour}"
            expected.append(f"{what} at the {rows[item.y // 32]} {columns[item.x // 32]}")
        assert sentences == expected


def test_no_question_comes_twice_in_a_conversation():
    kinds = full = 0
    for index in range(100):
        rng = scene_rng("train", 5, index)
        drawn = draw_questions(rng, sample_scene(rng, "train"), 8)
        assert len({question.text for question in drawn}) == len(drawn) <= 8
        kinds += len({question.kind for question in drawn})
        full += len(drawn) == 8
    assert full >= 95, "a scene of one shape may have fewer"
    assert kinds > 500, "five kinds and more on average"


@pytest.mark.parametrize("count", [1, 2, 8])
def test_every_scene_gets_a_question(count):
    """Scenes of one kind of thing several times over allow few kinds of questions."""
    few = tuple(Item("shape", "star", "blue", "large", 16 + 32 * column, 16) for column in range(3))
    for index in range(300):
        rng = scene_rng("train", 6, index)
        for scene in (Scene(few), sample_scene(rng, "train", 2)):
            assert draw_questions(rng, scene, count)


@pytest.mark.parametrize("text", ["Yes.", " yes", "YES .", "yes\n"])
def test_answers_are_compared_without_dress(text):
    assert normalise(text) == "yes"
