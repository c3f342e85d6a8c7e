"""The converter, on a package made here with the layout of easy-vqa; and, where it is installed, on the real one."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ada.eval.questions.question_file import read_question_file
from llava.train.data.preprocessing import template_of
from llava.train.data.validate import check_data
from playground.easy_vqa import convert

COLOURS = {"red": (255, 0, 0), "teal": (0, 128, 128), "gray": (128, 128, 128)}
ANSWERS = [*COLOURS, "circle", "rectangle", "yes", "no"]
IMAGE_COUNTS = {"train": 41, "test": 7}
SHORT = "\nAnswer the question using a single word or phrase."


def asked_of(number: int) -> list[list[Any]]:
    """Seven questions about image ``number``, whose colour follows from it."""
    colour = list(COLOURS)[number % 3]
    return [
        [f"what is the {colour} shape?", "circle", number],
        ["what color is the circle?", colour, number],
        ["what is the color of the shape?", colour, number],
        ["is a circle present?", "yes", number],
        ["is there a rectangle?", "no", number],
        ["is no circle present?", "no", number],
        [f"does the image not contain a {colour} shape?", "no", number],
    ]


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """The data folder of a package ``easy_vqa`` that can be found."""
    package = tmp_path / "site" / "easy_vqa"
    for split, images in IMAGE_COUNTS.items():
        (package / "data" / split / "images").mkdir(parents=True)
        rows = [row for number in range(images) for row in asked_of(number)]
        (package / "data" / split / "questions.json").write_text(json.dumps(rows))
        for number in range(images):
            size = (64, 64 if split == "train" else 63)  # distinguishes a split's images from the other's
            colour = list(COLOURS.values())[number % 3]
            Image.new("RGB", size, colour).save(package / "data" / split / "images" / f"{number}.png")
    (package / "__init__.py").write_text("raise RuntimeError('read, never imported')")
    (package / "data" / "answers.txt").write_text("\n".join(ANSWERS) + "\n")
    monkeypatch.syspath_prepend(str(package.parent))
    return package / "data"


@pytest.fixture
def out(data, tmp_path) -> Path:
    assert convert.main(["--out", str(tmp_path / "out")]) == 0
    return tmp_path / "out"


def records(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "conversations.json").read_text())


def turns(record: dict[str, Any]) -> list[list[Any]]:
    """A record as the package words it: question, answer, image."""
    texts = [message["value"].removeprefix("<image>\n").removesuffix(SHORT) for message in record["conversations"]]
    return [[*pair, int(Path(record["image"]).stem)] for pair in zip(texts[::2], texts[1::2], strict=True)]


def asked(out: Path, name: str) -> list[dict[str, Any]]:
    """A question file's lines, which a sweep takes, too."""
    rows = [json.loads(line) for line in (out / name).read_text().splitlines()]
    assert [item.truth for item in read_question_file(out / name, out / "images").items] == [r["answer"] for r in rows]
    return rows


def lines(out: Path, name: str) -> list[list[Any]]:
    """Question, answer and image of each line."""
    return [[r["text"].removesuffix(SHORT), r["answer"], int(Path(r["image"]).stem)] for r in asked(out, name)]


def test_no_question_is_lost_and_none_is_in_two_splits(data, out):
    package = {split: json.loads((data / split / "questions.json").read_text()) for split in IMAGE_COUNTS}
    learned = [turn for record in records(out) for turn in turns(record)]
    held_out = lines(out, "validation.jsonl")
    assert sorted(learned + held_out) == sorted(package["train"])
    assert lines(out, "test.jsonl") == package["test"]
    assert {row[2] for row in held_out} == {0, 20, 40}
    assert not {row[2] for row in learned} & {row[2] for row in held_out}


def test_images_of_two_splits_with_one_number_differ(data, out):
    """Splits number their images alike: a record must not get the other split's image."""
    named = {record["image"] for record in records(out)}
    for name in ("validation.jsonl", "test.jsonl"):
        named |= {row["image"] for row in asked(out, name)}
    assert len(named) == sum(IMAGE_COUNTS.values())
    for image in named:
        split, name = image.split("/")
        assert (out / "images" / image).read_bytes() == (data / split / "images" / name).read_bytes()


def test_conversations_are_what_training_takes(out):
    assert check_data(str(out / "conversations.json"), str(out / "images"), template_of("v1")) == len(records(out))
    for record in records(out):
        messages = record["conversations"]
        assert len(messages) <= 2 * convert.TURNS
        assert ["<image>" in message["value"] for message in messages] == [True] + [False] * (len(messages) - 1)
        assert all(message["value"].endswith(SHORT) for message in messages[::2])


def test_kinds_of_questions(out):
    kinds = {row["text"].removesuffix(SHORT): row["category"] for row in asked(out, "test.jsonl")}
    assert kinds["what is the red shape?"] == "shape"
    assert kinds["what color is the circle?"] == kinds["what is the color of the shape?"] == "colour"
    assert kinds["is a circle present?"] == kinds["is there a rectangle?"] == "presence"
    assert kinds["is no circle present?"] == kinds["does the image not contain a red shape?"] == "absence"


def test_the_same_seed_gives_the_same_bytes(data, out, tmp_path):
    convert.convert(data, tmp_path / "again", seed=0)
    convert.convert(data, tmp_path / "other", seed=1)
    files = {p.relative_to(out) for p in out.rglob("*") if p.is_file()}
    assert files == {p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*") if p.is_file()}
    assert all((out / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in files)
    assert records(out) != records(tmp_path / "other")


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "easy_vqa", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert convert.main(["--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert "easy-vqa" in message
    assert "pip install 'ada-llava[easy-vqa]'" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ([["is there a circle?", "perhaps", 0]], "'perhaps'"),
        ([["is there a circle?", "yes"]], "question 1"),
        ([["is there a circle?", "yes", True]], "question 1"),
        ([["is there a circle?", "yes", 9999]], "9999.png"),
        ([], "no list of questions"),
        ({"questions": []}, "no list of questions"),
        ("not JSON", "not JSON"),
    ],
)
def test_a_damaged_package(data, tmp_path, capsys, damage, message):
    path = data / "train" / "questions.json"
    path.write_text(damage if isinstance(damage, str) else json.dumps(damage))
    assert convert.main(["--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "test.jsonl").exists()  # by which the script knows that the data is whole


def test_the_preset_starts_from_the_bundled_model_as_it_is(root):
    """Whatever its prefix and its rank are: the checkpoint's config says so, no flag does."""
    env = {"PATH": os.environ["PATH"], "PRESET": "easy-vqa", "DRY_RUN": "1", "STEPS": "7"}
    script = root / "scripts" / "v1_5" / "finetune_task.sh"
    shown = subprocess.run(["bash", script], env=env, capture_output=True, text=True, check=True).stdout
    words = shlex.split(shown)
    flags = dict(itertools.pairwise(words))  # the last one of a name wins, as in the program
    assert words[:2] == ["python", "llava/train/train_mem.py"]
    assert flags["--model_name_or_path"] == "ada/checkpoints/shapes-H"
    assert flags["--data_path"] == "playground/data/easy-vqa/conversations.json"
    assert flags["--latency_budget"] == "0.5:1.0"
    assert flags["--max_steps"] == "7"
    assert not {"--num_prefix_layers", "--scheduler_rank", "--vision_tower"} & set(words)


@pytest.mark.skipif(importlib.util.find_spec("easy_vqa") is None, reason="the extra easy-vqa is not installed")
def test_the_real_package(tmp_path):
    assert convert.main(["--out", str(tmp_path)]) == 0
    learned = [turn for record in records(tmp_path) for turn in turns(record)]
    held_out, test = lines(tmp_path, "validation.jsonl"), lines(tmp_path, "test.jsonl")
    assert (len(learned) + len(held_out), len(test)) == (38575, 9673)
    assert len({answer for _, answer, _ in test}) == len({answer for _, answer, _ in learned}) == 13
