"""Surveys hold each thing of a scene once in its group, and count it."""

import random
import re

import pytest

from playground.shapes.scene import CELL, COLOURS, SHAPES, SIZES, sample_scene, scene_rng
from playground.smol.conversations import SURVEY_SHARE, conversation_record
from playground.smol.surveys import REQUESTS, survey, survey_request

ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")
GROUPS = {"colour": COLOURS, "shape": SHAPES, "size": SIZES, "column": COLUMNS, "row": ROWS}


def group_of(item, by: str) -> str:
    if by in ("column", "row"):
        return COLUMNS[min(2, item.x // CELL)] if by == "column" else ROWS[item.y // CELL]
    return getattr(item, {"shape": "name"}.get(by, by)) if item.kind == "shape" else ""


@pytest.mark.parametrize("by", [*REQUESTS])
def test_survey_counts_and_names_each_thing_in_its_group(by) -> None:
    for index in range(300):
        scene = sample_scene(scene_rng("train", 7, index), "train")
        groups = re.findall(r"(\w+): (\d)(?:, (.*?))?\.", survey(scene, by))
        assert [group.lower() for group, *_ in groups] == [*GROUPS[by]]
        for group, count, listed in groups:
            items = sorted(
                (i for i in scene.items if group_of(i, by) == group.lower()), key=lambda i: (i.y // CELL, i.x)
            )
            named = listed.split(" and ") if listed else []
            assert int(count) == len(items) == len(named)
            for item, name in zip(items, named, strict=True):
                words = {item.name, item.colour, item.size} if item.kind == "shape" else {item.kind, item.name}
                assert set(name.split()) <= words and len(name.split()) == 2


def test_conversations_end_with_their_survey() -> None:
    """What stands in a survey would answer the questions after it."""
    seen = 0
    for index in range(200):
        rng = scene_rng("train", 7, index)
        turns = conversation_record(rng, sample_scene(rng, "train"), "n", "i")["conversations"]
        answers = [turn["value"] for turn in turns if turn["from"] == "gpt"]
        surveys = [re.fullmatch(r"(\w+: \d(, [^.]*)?\. ?)+", answer) is not None for answer in answers]
        assert not any(surveys[:-1])
        seen += surveys[-1]
    assert abs(seen / 200 - SURVEY_SHARE) < 0.1


def test_requests_are_drawn_of_every_way() -> None:
    rng = random.Random(0)
    assert {survey_request(rng)[0] for _ in range(100)} == set(REQUESTS)
