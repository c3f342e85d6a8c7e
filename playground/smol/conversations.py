"""Makes training records in LLaVA's conversation JSON, and test questions, as people ask.

Captions for stage 1; conversations of several turns for stage 2; one or two turns for training under budgets.
"""

from __future__ import annotations

import random
from typing import Any

from playground.shapes.conversations import Record, dialogue_record
from playground.shapes.counting import plural
from playground.shapes.questions import LETTER, SHORT
from playground.shapes.scene import Scene
from playground.smol.asked import Asked
from playground.smol.captions import caption, caption_request
from playground.smol.questions import KINDS
from playground.smol.surveys import survey, survey_request
from playground.smol.things import matching, position, single, with_article, written_colours
from playground.smol.wordings import WORDINGS, fill, lines, spelled

TURNS = (3, 6, 9)  # of a conversation of stage 2
FEW_TURNS = (1, 1, 2)  # the latency token stands before the last answer: few turns, so that most answers see it
SHORT_SHARE = 0.7  # of the turns that ask for a word, which is harder: a sentence first names what to find
AMERICAN_SHARE = 0.5  # of the conversations
CAPTION_SHARE = 0.15  # of the conversations with a description
SURVEY_SHARE = 0.3  # of the conversations that end with a survey: questions after it could be read off it
FOLLOW_UP_SHARE = 0.3  # of the conversations that speak of a thing again, as "it"
# What is learned last comes up more often.
WEIGHTS = {
    "choice": 6,
    "count": 6,
    "count_two": 6,
    "shape": 7,
    "reading": 5,
    "relation": 4,
    "compare": 2,
    "where": 2,
    "verify": 2,
    "at": 2,
}

Turn = tuple[str, str]

_THEN = {
    "colour": lines("""
        What colour is it?
        Which colour does it have?
        And its colour?
        What is its colour?
    """),
    "size": lines("""
        How big is it?
        What size is it?
        Is it small or large?
        And its size?
    """),
    "where": lines("""
        Where is it?
        Where in the {pic} is it?
        And where is it?
        Where do you see it?
    """),
    "shape": lines("""
        What shape is it?
        What is it?
        Which shape does it have?
        And its shape?
    """),
}


def caption_record(rng: random.Random, scene: Scene, name: str, image: str) -> Record:
    """Make a record of stage 1: a request, and a description with every size, colour and place."""
    return dialogue_record(name, image, [("Describe the picture.", caption(scene, "detailed"))])


def conversation_record(rng: random.Random, scene: Scene, name: str, image: str) -> Record:
    """Make a record of stage 2: questions of many kinds, descriptions, questions that refer to the one before."""
    american = rng.random() < AMERICAN_SHARE
    turns = question_turns(rng, scene, rng.choice(TURNS), american)
    if rng.random() < CAPTION_SHARE:
        turns.insert(rng.choice((0, rng.randint(0, len(turns)))), _described(rng, scene, american))
    if rng.random() < FOLLOW_UP_SHARE:
        at = rng.randint(0, len(turns))
        turns[at:at] = _follow_up(rng, scene, american)
    if rng.random() < SURVEY_SHARE:
        turns.append(_surveyed(rng, scene, american))
    return dialogue_record(name, image, turns)


def short_record(rng: random.Random, scene: Scene, name: str, image: str) -> Record:
    """Make a record for training under budgets: a question or two, or a description."""
    american = rng.random() < AMERICAN_SHARE
    turns = question_turns(rng, scene, rng.choice(FEW_TURNS), american)
    chance = rng.random()
    if chance < 0.08:
        turns = _follow_up(rng, scene, american) or turns
    elif chance < 0.2:
        turns[-1] = _described(rng, scene, american)
    return dialogue_record(name, image, turns)


def question_turns(rng: random.Random, scene: Scene, count: int, american: bool) -> list[Turn]:
    """Ask ``count`` different questions, in as many kinds as the scene and the weights allow."""
    turns: dict[str, str] = {}
    kinds: list[str] = []
    while len(turns) < count:
        if not kinds:
            kinds = [kind for kind in KINDS for _ in range(WEIGHTS.get(kind, 1))]
            rng.shuffle(kinds)
        asked = rng.choice(KINDS[kinds.pop()])(rng, scene)
        if asked is not None:
            form = rng.choice(WORDINGS[asked.form].training_forms)
            question, answer = turn(rng, asked, form, rng.random() < SHORT_SHARE, american)
            turns.setdefault(question, answer)
    return list(turns.items())


def turn(rng: random.Random, asked: Asked, form: str, short: bool, american: bool) -> Turn:
    """Put a question into words, with LLaVA's request for a word or a letter where the answer is short."""
    text = fill(form, rng, asked.slots, american)
    if asked.options:
        options = [spelled(option, american) for option in asked.options]
        listed = "\n".join(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=True))
        return f"{text}\n{listed}\n{LETTER}", "ABCD"[asked.options.index(asked.short)]
    if short:
        return f"{text}\n{SHORT}", spelled(asked.short, american)
    return text, spelled(asked.full, american)


def test_question(rng: random.Random, scene: Scene, kind: str, short: bool) -> dict[str, Any] | None:
    """Make a question of a kind in a wording that training does not have; None where the scene allows none."""
    asked = rng.choice(KINDS[kind])(rng, scene)
    if asked is None:
        return None
    form = rng.choice(WORDINGS[asked.form].test_forms)
    question, answer = turn(rng, asked, form, short, rng.random() < AMERICAN_SHARE)
    return {"text": question, "category": kind, "answer": answer}


def _described(rng: random.Random, scene: Scene, american: bool) -> Turn:
    length, form = caption_request(rng)
    return fill(form, rng, {}, american), spelled(caption(scene, length), american)


def _surveyed(rng: random.Random, scene: Scene, american: bool) -> Turn:
    by, form = survey_request(rng)
    return fill(form, rng, {}, american), spelled(survey(scene, by), american)


def _follow_up(rng: random.Random, scene: Scene, american: bool) -> list[Turn]:
    """Ask for a thing, then for one or two of its attributes."""
    chosen = single(rng, scene, scene.shapes)
    if chosen is None:
        return []
    item, name = chosen
    by_colour = f"{item.colour} object"
    if len(matching(scene, by_colour)) == 1 and item.colour not in written_colours(scene) and rng.random() < 0.3:
        name = by_colour
    form = rng.choice(WORDINGS["existence"].asked)
    asked = fill(form, rng, {"a": with_article(name), "xs": plural(name)}, american)
    answers = {
        "colour": (item.colour, f"It is {item.colour}."),
        "size": (item.size, f"It is {item.size}."),
        "where": (position(item).split(" ", 2)[2], f"It is {position(item)}."),
        "shape": (item.name, f"It is {with_article(item.name)}."),
    }
    known = {"colour": item.colour in name, "size": item.size in name, "shape": item.name in name}
    open_kinds = [kind for kind in answers if not known.get(kind, False)]
    turns = [(asked, f"Yes, there is {with_article(name)}.")]
    for kind in rng.sample(open_kinds, min(len(open_kinds), rng.choice((1, 2)))):
        short, full = answers[kind]
        turns.append(
            turn(rng, Asked(kind, kind, {}, short, full), rng.choice(_THEN[kind]), rng.random() < 0.4, american)
        )
    return turns
