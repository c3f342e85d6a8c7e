"""The world for SmolLM2 as the program writes it: what LLaVA trains on, and tests that share nothing with it."""

import json
import sys
from collections import Counter

import pytest
from PIL import Image

from playground.smol import generate
from playground.smol.questions import KINDS

CHAT = [
    {"id": f"chat-{number}", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]}
    for number in range(2)
]
SCENES, QUESTIONS = 30, 2 * len(KINDS)


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    """``write(seed)`` runs the program; its folder."""

    def run(seed, *flags):
        folder = tmp_path_factory.mktemp("smol")
        (folder / "chat.json").write_text(json.dumps(CHAT))
        sizes = ["--scenes", SCENES, "--test-questions", QUESTIONS, "--seed", seed, "--chat", folder / "chat.json"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["generate", "--out", str(folder / "data"), *map(str, sizes), *flags])
            generate.main()
        return folder / "data"

    return run


@pytest.fixture(scope="module")
def world(write):
    return write(3)


def records_of(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def asked_of(folder, split):
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]


def test_training_files_are_llavas_conversations_about_images_that_are_there(world):
    shown = {}
    for name in ("captions", "conversations", "short"):
        records = records_of(world, name)
        chat = [record for record in records if "image" not in record]
        shown[name] = {record["image"] for record in records if "image" in record}
        wanted = 0 if name == "captions" else round(SCENES * 0.08 / 0.92)
        assert len(records) == SCENES + len(chat) and len(chat) == wanted
        for record in records:
            speakers = [message["from"] for message in record["conversations"]]
            assert speakers == ["human", "gpt"] * (len(speakers) // 2) and speakers
            marks = [message["value"].count("<image>") for message in record["conversations"]]
            assert marks == [int("image" in record)] + [0] * (len(marks) - 1)
    assert len(shown["captions"]) == SCENES and shown["captions"] == shown["conversations"] == shown["short"]
    for image in shown["captions"]:
        with Image.open(world / "images" / image) as opened:
            assert (opened.size, opened.mode) == ((168, 168), "RGB")


def test_every_kind_is_asked_alike_about_scenes_that_nothing_else_shows(world):
    pixels = Counter(path.read_bytes() for path in (world / "images").rglob("*.png"))
    assert set(pixels.values()) == {1} and len(pixels) == SCENES + 2 * QUESTIONS
    for split in ("validation", "test"):
        asked = asked_of(world, split)
        assert [one["question_id"] for one in asked] == list(range(QUESTIONS))
        assert Counter(one["category"] for one in asked) == dict.fromkeys(KINDS, QUESTIONS // len(KINDS))
        assert all((world / "images" / one["image"]).is_file() and one["answer"] for one in asked)


def test_the_same_seed_writes_the_same_and_another_seed_another_world(world, write):
    again, other = write(3), write(4)
    for name in ("captions.json", "conversations.json", "short.json", "validation.jsonl", "test.jsonl"):
        first = (world / name).read_bytes()
        assert first == (again / name).read_bytes() != (other / name).read_bytes()


@pytest.mark.parametrize("flags", [["--scenes", "0"], ["--test-questions", "-1"]])
def test_numbers_below_one_are_refused(write, flags, capsys):
    with pytest.raises(SystemExit) as raised:
        write(3, *flags)
    assert raised.value.code == 2 and "whole numbers from 1 up" in capsys.readouterr().err
