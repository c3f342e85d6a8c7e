"""Scenes and questions for a benchmark, and the folder that its files go to."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.files.atomic_write import atomic_write
from playground.shapes.questions import Maker, Question
from playground.shapes.saving import save_image
from playground.shapes.scene import Item, Scene, sample_scene

Look = frozenset[Item]  # what two scenes that look the same have in common
Row = dict[str, Any]
PEOPLE = 10  # answers to an open question, all of them alike


@dataclass(frozen=True)
class Bench:
    """One benchmark of ``count`` questions, in ``folder``. Its scenes are the test split's, with other seeds; none
    looks like one that is ``taken``.
    """

    name: str
    folder: Path
    seed: int
    count: int
    taken: frozenset[Look]

    def scenes(self) -> Iterator[tuple[random.Random, Scene]]:
        """Yield scenes without end, none twice, each with its generator as it stands after the scene."""
        seen: set[Look] = set()
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
        """Yield ``count`` questions, one a scene, the makers in turn; with each its number."""
        scenes = self.scenes()
        for number in range(self.count):
            question = None
            while question is None:
                rng, scene = next(scenes)
                question = makers[number % len(makers)](rng, scene)
            yield number, scene, question

    def save_image(self, scene: Scene, name: str) -> None:
        """Draw a scene into the benchmark's folder."""
        save_image(scene, self.folder / name)

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file into the benchmark's folder."""
        atomic_write(self.folder / name, json.dumps(content, indent=1) + "\n")

    def write_lines(self, name: str, rows: Sequence[Row]) -> None:
        """Write a JSON-lines file into the benchmark's folder."""
        atomic_write(self.folder / name, "".join(json.dumps(row) + "\n" for row in rows))


Write = Callable[[Bench], None]


def people(answer: str) -> list[dict[str, Any]]:
    """Return what ten people answered, as VQAv2 and VizWiz have it."""
    return [{"answer_id": n, "answer": answer, "answer_confidence": "yes"} for n in range(1, PEOPLE + 1)]


def options_of(question: Question) -> tuple[str, list[str]]:
    """Return the text and the options of a ``choice`` question."""
    text, *lines = question.text.split("\n")
    return text, [line.partition(". ")[2] for line in lines]
