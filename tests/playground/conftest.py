"""A small shapes world, generated once, with the scene of every image."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from playground.shapes import generate
from playground.shapes.scene import Scene
from playground.shapes.tokenizer import conversation_texts, train_tokenizer

SEED = 3


@dataclass
class World:
    """``scenes`` by the name of their image, as records name it."""

    folder: Path
    scenes: dict[str, Scene] = field(default_factory=dict)

    def records(self, name: str) -> list[dict[str, Any]]:
        """A training file (.json) or a question file (.jsonl)."""
        text = (self.folder / name).read_text(encoding="utf-8")
        return json.loads(text) if name.endswith(".json") else [json.loads(line) for line in text.splitlines()]

    def of_split(self, split: str) -> list[Scene]:
        """The scenes whose images are in a split's folder."""
        return [scene for name, scene in self.scenes.items() if name.startswith(f"{split}/")]


@pytest.fixture(scope="session")
def make_world():
    """``make_world(folder, seed, scenes, questions)``: what the command writes, and its scenes."""

    def make(folder: Path, seed: int = SEED, scenes: int = 12, questions: int = 10) -> World:
        world = World(folder)
        images = folder / "images"

        def save(scene: Scene, path: Path, write=generate.save_image) -> None:
            world.scenes[path.relative_to(images).as_posix()] = scene
            write(scene, path)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(generate, "save_image", save)
            generate.generate(folder, seed, scenes, questions)
        for index in range(scenes):  # drawn in other processes
            world.scenes[f"{generate.training_name(index)}.png"] = generate.training_scene(seed, index)[1]
        return world

    return make


@pytest.fixture(scope="session")
def world(make_world, tmp_path_factory) -> World:
    """A world of 90 training scenes and 80 questions a split."""
    return make_world(tmp_path_factory.mktemp("world"), scenes=90, questions=80)


@pytest.fixture(scope="session")
def tokenizer(world):
    """The tokenizer of that world."""
    return train_tokenizer(conversation_texts(world.folder / "conversations.json"))
