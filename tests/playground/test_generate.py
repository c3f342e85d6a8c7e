"""What the generator writes: the same for the same seed, with nothing shared between its splits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
from PIL import Image

from playground.shapes import generate, saving
from playground.shapes.draw import draw
from playground.shapes.scene import COLOURS, HELD_OUT, SHAPES, SIDE, Scene, sample_scene, scene_rng

SPLITS = ("train", "validation", "test")
HELD_OUT_NAMES = [f"{colour} {shape}" for colour, shape in HELD_OUT]


def names_held_out(text: str) -> bool:
    return any(name in text for name in HELD_OUT_NAMES)


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(make_world, tmp_path):
    first, again, other = (files(make_world(tmp_path / str(i), seed).folder) for i, seed in enumerate((3, 3, 4)))
    assert first == again
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first if name.endswith((".json", ".jsonl")))
    assert not any(".part" in name for name in first)


def test_images_of_another_world_are_replaced(make_world, tmp_path):
    for seed in (4, 3):
        make_world(tmp_path / "one", seed)
    assert files(tmp_path / "one") == files(make_world(tmp_path / "two", 3).folder)


def test_image_shows_its_scene(world):
    for name, scene in world.scenes.items():
        assert Image.open(world.folder / "images" / name).tobytes() == draw(scene).tobytes(), name


def test_splits_share_no_seed():
    draws = {scene_rng(split, seed, index).random() for split in SPLITS for seed in range(5) for index in range(50)}
    assert len(draws) == 3 * 5 * 50


def test_splits_share_no_look(tmp_path, monkeypatch):
    """Scenes of one shape at one place: there are so few that chance alone would bring them up in every split."""

    def crowded(rng, split, max_shapes=6, written=0.0):
        scene = sample_scene(rng, split, 1)
        return Scene(tuple(replace(item, x=48, y=48) for item in scene.shapes), scene.pairs)

    monkeypatch.setattr(generate, "sample_scene", crowded)
    monkeypatch.setattr(generate, "KINDS", {"count": generate.KINDS["count"]})
    monkeypatch.setattr(saving, "draw", lambda scene, side: Image.new("RGB", (1, 1)))
    taken = {frozenset(crowded(scene_rng("train", 0, i), "train").items) for i in range(40)}
    trained = len(taken)
    for split in SPLITS[1:]:
        assert len(list(generate.questions(tmp_path, split, 0, 15, taken))) == 15
    assert len(taken) == trained + 30


def test_no_image_is_in_two_splits_of_a_world(world):
    looks = [frozenset(scene.items) for split in SPLITS[1:] for scene in world.of_split(split)]
    train = {frozenset(scene.items) for scene in world.of_split("train")}
    assert len(set(looks)) == len(looks) and not train & set(looks)
    pixels = [bytes_ for name, bytes_ in files(world.folder).items() if name.startswith(("images/val", "images/test"))]
    trained = {bytes_ for name, bytes_ in files(world.folder).items() if name.startswith("images/train")}
    assert len(set(pixels)) == len(pixels) and not trained & set(pixels)


def test_held_out_pairs_are_in_the_test_alone(world):
    for split in SPLITS[:2]:
        assert not any((i.colour, i.name) in HELD_OUT for scene in world.of_split(split) for i in scene.shapes)
    for file in ("texts.json", "captions.json", "conversations.json", "short.json", "validation.jsonl"):
        assert not names_held_out((world.folder / file).read_text(encoding="utf-8")), file
    shown = {(i.colour, i.name) for scene in world.of_split("test") for i in scene.shapes}
    assert shown >= HELD_OUT, "the test shows them all"
    assert names_held_out((world.folder / "test.jsonl").read_text(encoding="utf-8")), "and asks about them"


def test_training_knows_every_colour_and_every_shape():
    scenes = [sample_scene(scene_rng("train", 0, i), "train") for i in range(300)]
    assert {i.colour for s in scenes for i in s.shapes} == set(COLOURS)
    assert {i.name for s in scenes for i in s.shapes} == set(SHAPES)


def test_files_have_llavas_fields(world):
    for name in ("captions.json", "conversations.json", "short.json"):
        for record in world.records(name):
            assert record.keys() == {"id", "image", "conversations"}
            assert record["conversations"][0]["value"].startswith("<image>\n")
    assert {len(r["conversations"]) for r in world.records("short.json")} == {2, 4, 6}, "one to three questions"
    assert all("image" not in r and "<image>" not in json.dumps(r) for r in world.records("texts.json"))
    for split in SPLITS[1:]:
        records = world.records(f"{split}.jsonl")
        assert [r["question_id"] for r in records] == list(range(80))
        assert {r["category"]: 8 for r in records} == Counter(r["category"] for r in records)
        for record in records:
            with Image.open(world.folder / "images" / record["image"]) as image:
                assert image.size == (SIDE, SIDE) and image.mode == "RGB"


@pytest.mark.parametrize("flags", [["--scenes", "0"], ["--test-questions", "-1"]])
def test_the_command_refuses_impossible_numbers(flags, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["generate", "--out", str(tmp_path), *flags])
    with pytest.raises(SystemExit) as stopped:
        generate.main()
    assert stopped.value.code == 2 and "--scenes and --test-questions" in capsys.readouterr().err


def test_the_command_in_its_own_process(root, make_world, tmp_path):
    """The same world in every process: nothing hangs on the order of a set of strings, which each process has anew."""
    command = [sys.executable, "-m", "playground.shapes.generate", "--seed", "3", "--scenes", "12"]
    for hashing in ("1", "2"):
        flags = ["--test-questions", "10", "--out", str(tmp_path / hashing)]
        subprocess.run([*command, *flags], cwd=root, check=True, env={"PYTHONHASHSEED": hashing}, timeout=120)
    assert files(tmp_path / "1") == files(tmp_path / "2") == files(make_world(tmp_path / "here").folder)
