"""Scenes and questions for a benchmark, and the folder that its files go to."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playground.shapes.questions import Maker, Question
from playground.shapes.saving import save_picture, write_beside
from playground.shapes.scene import Item, Scene, sample_scene

Picture = frozenset[Item]
Row = dict[str, Any]
PEOPLE = 10  # answers to an open question, all of them alike


@dataclass(frozen=True)
class Bench:
    """One benchmark of ``count`` questions, in ``folder``. Its scenes are the test split's, with seeds of their own;
    none looks like one that is ``taken``."""

    name: str
    folder: Path
    seed: int
    count: int
    taken: frozenset[Picture]

    def scenes(self) -> Iterator[tuple[random.Random, Scene]]:
        """Without end, none twice; the generator stands where the scene left it."""
        seen: set[Picture] = set()
        index = 0
        while True:
            rng = random.Random(f"test/{self.seed}/{self.name}/{index}")
            index += 1
            scene = sample_scene(rng, "test")
            look = frozenset(scene.items)
            if look not in self.taken and look not in seen:
                seen.add(look)
                yield rng, scene

    def asked(self, makers: Sequence[Maker]) -> Iterator[tuple[int, Scene, Question]]:
        """``count`` questions, one a scene, the makers in turn; with each its number."""
        scenes = self.scenes()
        for number in range(self.count):
            question = None
            while question is None:
                rng, scene = next(scenes)
                question = makers[number % len(makers)](rng, scene)
            yield number, scene, question

    def picture(self, scene: Scene, name: str) -> None:
        """Draw a scene into the benchmark's folder."""
        save_picture(scene, self.folder / name)

    def write_json(self, name: str, content: Any) -> None:
        """A JSON file."""
        write_beside(self.folder / name, json.dumps(content, indent=1) + "\n")

    def write_lines(self, name: str, rows: Sequence[Row]) -> None:
        """A JSON-lines file."""
        write_beside(self.folder / name, "".join(json.dumps(row) + "\n" for row in rows))


Write = Callable[[Bench], None]


def people(answer: str) -> list[dict[str, Any]]:
    """What ten people answered, as VQAv2 and VizWiz have it."""
    return [{"answer_id": n, "answer": answer, "answer_confidence": "yes"} for n in range(1, PEOPLE + 1)]


def options_of(question: Question) -> tuple[str, list[str]]:
    """The text and the options of a ``choice`` question."""
    text, *lines = question.text.split("\n")
    return text, [line.partition(". ")[2] for line in lines]
