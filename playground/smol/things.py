"""Names what a scene shows: things by one or two attributes, with their article and plural, and places."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence

from playground.shapes.captions import position_text
from playground.shapes.scene import Item, Scene

# As people say it, for "top left" to "bottom right" of the grid.
POSITIONS = {
    "top left": "at the top left",
    "top centre": "at the top",
    "top right": "at the top right",
    "middle left": "on the left",
    "middle centre": "in the middle",
    "middle right": "on the right",
    "bottom left": "at the bottom left",
    "bottom centre": "at the bottom",
    "bottom right": "at the bottom right",
}
WRITTEN = {"word": ("word", "text"), "digit": ("digit", "number")}


def position(item: Item) -> str:
    """Say where an item is: "at the top left", "in the centre"."""
    return POSITIONS[position_text(item)]


def with_article(name: str) -> str:
    """Put "a" or "an" before a name."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def described(item: Item, size: bool = True) -> str:
    """Describe an item without its place: "a large red star", "the word sun in red"."""
    if item.kind == "shape":
        return with_article(f"{item.size} {item.label}" if size else item.label)
    return f"the {item.kind} {item.name} in {item.colour}" if size else f"the {item.kind} {item.name}"


def joined(parts: Sequence[str]) -> str:
    """Join parts by commas and an "and"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def names_of(rng: random.Random, item: Item, without: str = "") -> list[str]:
    """Return what an item may be called, shortest first, ``without`` naming its colour, or its size."""
    if item.kind != "shape":
        return [rng.choice(WRITTEN[item.kind])]
    named = {"": item.name, "colour": item.label, "size": f"{item.size} {item.name}"}
    return [name for attribute, name in named.items() if not attribute or attribute != without]


def matching(scene: Scene, name: str) -> list[Item]:
    """Return the shapes that a name such as "star", "red star", "large star" or "red object" means."""
    *attributes, noun = name.split()
    return [
        item
        for item in scene.shapes
        if noun in (item.name, "object") and all(attribute in (item.colour, item.size) for attribute in attributes)
    ]


def written_colours(scene: Scene) -> set[str]:
    """Return the colours of a word and a digit: whether those are objects, too, people do not agree."""
    return {item.colour for item in scene.items if item.kind != "shape"}


def unique_name(rng: random.Random, scene: Scene, item: Item, without: str = "") -> str | None:
    """Choose a name that means this item alone; None where there is none."""
    if item.kind != "shape":
        return rng.choice(WRITTEN[item.kind])
    fitting = [name for name in names_of(rng, item, without) if len(matching(scene, name)) == 1]
    return rng.choice(fitting) if fitting else None


def single(rng: random.Random, scene: Scene, items: Iterable[Item], without: str = "") -> tuple[Item, str] | None:
    """Choose an item that a name means alone; return it and the name."""
    candidates = list(items)
    rng.shuffle(candidates)
    for item in candidates:
        name = unique_name(rng, scene, item, without)
        if name is not None:
            return item, name
    return None


def absent_name(rng: random.Random, scene: Scene, pairs: Sequence[tuple[str, str]]) -> str:
    """Choose a shape's name, or colour and shape, that nothing in the scene has; near misses first."""
    labels, names = Counter(i.label for i in scene.shapes), Counter(i.name for i in scene.shapes)
    colours = {i.colour for i in scene.shapes}
    near = [f"{colour} {name}" for colour, name in pairs if colour in colours or name in names]
    missing = [label for label in near if label not in labels]
    plain = [name for _, name in pairs if name not in names]
    return rng.choice(plain) if plain and rng.random() < 0.4 else rng.choice(missing)
