"""Questions of how many there are, and which there are more of."""

from __future__ import annotations

import random

from playground.shapes.counting import count_options, count_two_options, plural
from playground.shapes.scene import COLOURS, SHAPES, Item, Scene
from playground.smol.asked import Asked, yes_no
from playground.smol.things import matching, written_colours
from playground.smol.wordings import THINGS


def count(rng: random.Random, scene: Scene) -> Asked:
    """How many stars, red objects, large objects, or objects at all?"""
    return _count(rng, scene, "count", count_options(scene))


def count_two(rng: random.Random, scene: Scene) -> Asked:
    """Counting by two attributes at once."""
    return _count(rng, scene, "count_two", count_two_options(scene))


def _count(rng: random.Random, scene: Scene, kind: str, options: list[tuple[str, list[Item]]]) -> Asked:
    written = written_colours(scene)
    clear = [option for option in options if not (option[0].endswith("objects") and written & {*option[0].split()})]
    wanted = rng.choice(sorted({len(found) for _, found in clear}))
    names, _ = rng.choice([option for option in clear if len(option[1]) == wanted])
    # A word is no shape, but may be a thing.
    nouns = ("shape",) if written and not {*names.split()} & {*COLOURS} else THINGS
    names = names.replace("objects", f"{rng.choice(nouns)}s")
    full = f"There {'is' if wanted == 1 else 'are'} {wanted or 'no'} {_one(names) if wanted == 1 else names}."
    return Asked(kind, "count", {"xs": names}, str(wanted), full)


def _one(names: str) -> str:
    """Return the singular of the last word: "red crosses" -> "red cross"."""
    head, _, noun = names.rpartition(" ")
    singular = next((name for name in (*SHAPES, *THINGS) if plural(name) == noun), noun)
    return f"{head} {singular}".strip()


def _numbers(rng: random.Random, scene: Scene) -> tuple[tuple[str, int], tuple[str, int]] | None:
    """Two kinds of things and how many there are of each, at least one of the first or of the second."""
    if rng.random() < 0.5:
        a, b = rng.choice(scene.shapes).name, rng.choice(SHAPES)
    else:
        colours = rng.choice(scene.shapes).colour, rng.choice(COLOURS)
        if written_colours(scene) & {*colours}:
            return None
        a, b = (f"{colour} object" for colour in colours)
    if a == b:
        return None
    pair = (a, len(matching(scene, a))), (b, len(matching(scene, b)))
    return pair if rng.random() < 0.5 else (pair[1], pair[0])


def compare(rng: random.Random, scene: Scene) -> Asked | None:
    """Are there more stars than circles?"""
    found = _numbers(rng, scene)
    if found is None or (found[0][1] == found[1][1] and rng.random() < 0.5):
        return None
    (a, m), (b, n) = found
    xs, ys = plural(a), plural(b)
    full = f"No, there are as many {xs} as {ys}."
    if m != n:
        full = f"Yes, there are more {xs} than {ys}." if m > n else f"No, there are fewer {xs} than {ys}."
    return Asked("compare", "compare", {"xs": xs, "ys": ys}, yes_no(m > n), full)


def more(rng: random.Random, scene: Scene) -> Asked | None:
    """Which are there more of, stars or circles?"""
    found = _numbers(rng, scene)
    if found is None or found[0][1] == found[1][1]:
        return None
    (a, m), (b, n) = found
    larger = plural(a if m > n else b)
    return Asked("compare", "more", {"xs": plural(a), "ys": plural(b)}, larger, f"There are more {larger}.")
