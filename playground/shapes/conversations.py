"""Makes training records in LLaVA's conversation JSON.

Texts for the language stage, captions for stage 1, several turns an image for stage 2, few of them for training under
budgets.
"""

from __future__ import annotations

import random
from typing import Any

from playground.shapes.captions import caption, request
from playground.shapes.questions import EXPLAIN, SHORT, TRAINING, Question
from playground.shapes.scene import Scene

TAG = "<image>\n"
TURNS = 8
CAPTION_SHARE = 0.3  # of the records that hold a description, as the first turn or any other
REASONED_SHARE = 0.2  # of the turns that name their evidence before the verdict
BARE_SHARE = 0.1  # of the turns that ask without an instruction, as people do
SINGLE_SHARE = 0.1  # of the records with one question, as tests ask them
FEW_TURNS = (1, 1, 2, 3)  # the latency token stands before the last answer: few turns, so that most answers see it

Record = dict[str, Any]


def caption_record(rng: random.Random, scene: Scene, name: str, image: str) -> Record:
    """Make a record of stage 1: a request and the scene's description."""
    return dialogue_record(name, image, [(request(rng), caption(scene))])


def question_record(rng: random.Random, scene: Scene, name: str, image: str, turns: int = TURNS) -> Record:
    """Make a record of stage 2: questions of all kinds in random order, no question twice."""
    count = 1 if rng.random() < SINGLE_SHARE else turns
    dialogue = [_turn(rng, q) for q in draw_questions(rng, scene, count)]
    if rng.random() < CAPTION_SHARE:
        index = rng.choice((0, rng.randint(1, len(dialogue))))
        dialogue.insert(index, (request(rng), caption(scene)))
    return dialogue_record(name, image, dialogue)


def short_record(rng: random.Random, scene: Scene, name: str, image: str) -> Record:
    """Make a record for training under budgets: one question, or a few."""
    dialogue = [_turn(rng, q) for q in draw_questions(rng, scene, rng.choice(FEW_TURNS))]
    if rng.random() < CAPTION_SHARE / TURNS:
        dialogue[-1] = (request(rng), caption(scene))
    return dialogue_record(name, image, dialogue)


def text_record(rng: random.Random, scene: Scene, name: str, turns: int = TURNS) -> Record:
    """Make a record of the language stage: the same questions about a scene described in words, in any order."""
    first, *others = [_turn(rng, q) for q in draw_questions(rng, scene, turns)]
    sentences = caption(scene).split(". ")
    rng.shuffle(sentences)
    description = " ".join(f"{sentence.rstrip('.')}." for sentence in sentences)
    record = dialogue_record(name, "", [(f"{description}\n{first[0]}", first[1]), *others])
    del record["image"]
    first_message = record["conversations"][0]
    first_message["value"] = first_message["value"].removeprefix(TAG)
    return record


def draw_questions(rng: random.Random, scene: Scene, count: int) -> list[Question]:
    """Draw ``count`` different questions, their kinds as even as the scene allows; at least one."""
    makers = list(TRAINING)
    questions: dict[str, Question] = {}
    for attempt in range(max(4 * count, len(makers))):  # every kind at least once: some suit any scene
        if attempt % len(makers) == 0:
            rng.shuffle(makers)
        question = makers[attempt % len(makers)](rng, scene)
        if question is not None:
            questions.setdefault(question.text, question)
        if len(questions) == count:
            break
    return list(questions.values())


def _turn(rng: random.Random, question: Question) -> tuple[str, str]:
    if question.evidence and rng.random() < REASONED_SHARE:
        return f"{question.text}\n{EXPLAIN}", f"{question.evidence} So: {question.answer}"
    if question.instruction == SHORT and rng.random() < BARE_SHARE:
        return question.text, question.answer
    return question.prompt, question.answer


def dialogue_record(name: str, image: str, dialogue: list[tuple[str, str]]) -> Record:
    """Make a conversation about an image: what was asked, and what was answered, turn by turn."""
    messages = []
    for index, (asked, answered) in enumerate(dialogue):
        tag = TAG if index == 0 else ""
        messages += [{"from": "human", "value": tag + asked}, {"from": "gpt", "value": answered}]
    return {"id": name, "image": image, "conversations": messages}
