"""Benchmarks that are answered with yes or no: POPE and MME."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from llava.files.atomic_write import atomic_write
from playground.shapes.benchmark_scenes import Bench, Row
from playground.shapes.questions import APART, SHORT, plural
from playground.shapes.scene import COLOURS, PAIRS, SHAPES, WORDS, Scene

YES_NO = "Please answer yes or no."
CATEGORIES = ("adversarial", "popular", "random")

YesNo = tuple[str, str]  # a question with the answer yes, and one with the answer no


def is_there(label: str) -> str:
    """Return the question that POPE asks."""
    return f"Is there {'an' if label[0] in 'aeiou' else 'a'} {label} in the picture?"


def pope(bench: Bench) -> None:
    """Write six questions an image: in each category one about a thing that is there, one about a thing that is not.

    The absent thing is any (random), what most images show (popular), or like something that is there (adversarial).
    """
    scenes = bench.scenes()
    chosen = [next(scenes) for _ in range(max(1, bench.count // 6))]
    shown = Counter(item.label for _, scene in chosen for item in scene.shapes)
    labels = [f"{colour} {shape}" for colour, shape in PAIRS]
    popular = sorted(labels, key=lambda label: (-shown[label], label))
    asked: dict[str, list[Row]] = {category: [] for category in CATEGORIES}
    for number, (rng, scene) in enumerate(chosen):
        image = f"{number:06d}.png"
        bench.save_image(scene, f"val2014/{image}")
        present = {item.label for item in scene.shapes}
        absent = [label for label in labels if label not in present]
        near = [x for x in absent if {*x.split()} & {part for label in present for part in label.split()}]
        frequent = [label for label in popular if label not in present]
        pools = {"adversarial": near, "popular": frequent[:3], "random": absent}
        for category, pool in pools.items():
            for label, answer in ((rng.choice(sorted(present)), "yes"), (rng.choice(pool), "no")):
                asked[category].append({"image": image, "text": is_there(label), "label": answer})
    questions: list[Row] = []
    for category, rows in asked.items():
        bench.write_lines(f"coco/coco_pope_{category}.json", [{"question_id": n, **r} for n, r in enumerate(rows, 1)])
        for row in rows:
            text = f"{row['text']}\n{SHORT}"
            questions.append({"question_id": len(questions), "image": row["image"], "text": text, "category": category})
    bench.write_lines("llava_pope_test.jsonl", questions)


def mme(bench: Bench) -> None:
    """Write two questions an image, one to be answered yes, one no, in folders by category."""
    rows: list[Row] = []
    scenes = bench.scenes()
    for category, maker in MME.items():
        for number in range(max(1, bench.count // 2 // len(MME))):
            image = f"{category}/{number:04d}.png"
            scene, pair = _first(scenes, maker)
            root = "MME_Benchmark_release_version"
            bench.save_image(scene, f"{root}/{image}")
            lines = [f"{text} {YES_NO}\t{answer}\n" for text, answer in zip(pair, ("Yes", "No"), strict=True)]
            atomic_write(bench.folder / root / f"{image.removesuffix('.png')}.txt", "".join(lines))
            for text in pair:
                asked = f"{text}\n{SHORT}"  # without MME's own request, as LLaVA's question file has it
                rows.append({"question_id": image, "image": image, "text": asked, "category": category})
    bench.write_lines("llava_mme.jsonl", rows)


def _first(
    scenes: Iterator[tuple[random.Random, Scene]], maker: Callable[[random.Random, Scene], YesNo | None]
) -> tuple[Scene, YesNo]:
    """The next scene that allows a pair of questions."""
    for rng, scene in scenes:
        pair = maker(rng, scene)
        if pair is not None:
            return scene, pair
    raise AssertionError("scenes have no end")


def _existence(rng: random.Random, scene: Scene) -> YesNo:
    present = sorted({item.label for item in scene.shapes})
    absent = [f"{colour} {shape}" for colour, shape in PAIRS if f"{colour} {shape}" not in present]
    return is_there(rng.choice(present)), is_there(rng.choice(absent))


def _colour(rng: random.Random, scene: Scene) -> YesNo:
    """The same shape in its colour and in one that it does not have."""
    item = rng.choice(scene.shapes)
    present = {other.label for other in scene.shapes}
    wrong = [f"{colour} {item.name}" for colour in COLOURS if f"{colour} {item.name}" not in present]
    return is_there(item.label), is_there(rng.choice(wrong))


def _position(rng: random.Random, scene: Scene) -> YesNo | None:
    labels = Counter(item.label for item in scene.shapes)
    single = [item for item in scene.shapes if labels[item.label] == 1]
    pairs = [(a, b) for a in single for b in single if b.x - a.x >= APART]
    if not pairs:
        return None
    left, right = rng.choice(pairs)
    text = "Is the {} left of the {}?"
    return text.format(left.label, right.label), text.format(right.label, left.label)


def _more(names: Sequence[str], attribute: str) -> Callable[[random.Random, Scene], YesNo | None]:
    """Are there more of one kind than of another, asked both ways round."""

    def maker(rng: random.Random, scene: Scene) -> YesNo | None:
        counts = Counter(getattr(item, attribute) for item in scene.shapes)
        pairs = [(a, b) for a in sorted(counts) for b in names if counts[a] > counts[b]]
        if not pairs:
            return None
        one, two = (plural(x) if attribute == "name" else f"{x} objects" for x in rng.choice(pairs))
        return f"Are there more {one} than {two}?", f"Are there more {two} than {one}?"

    return maker


def _reading(rng: random.Random, scene: Scene) -> YesNo | None:
    word = scene.only("word")
    if word is None:
        return None
    wrong = rng.choice([other for other in WORDS if other != word.name])
    text = 'Is the word "{}" written in the picture?'
    return text.format(word.name), text.format(wrong)


MME: dict[str, Callable[[random.Random, Scene], YesNo | None]] = {
    "existence": _existence,
    "count": _more(SHAPES, "name"),
    "position": _position,
    "color": _colour,
    "OCR": _reading,
    "numerical_calculation": _more(COLOURS, "colour"),
}
