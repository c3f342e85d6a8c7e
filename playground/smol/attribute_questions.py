"""Questions about what is there, and how it looks."""

from __future__ import annotations

import random
from collections import Counter

from playground.shapes.counting import plural
from playground.shapes.scene import COLOURS, SIZES, Scene
from playground.smol.asked import ABSENT, Asked, refusal, yes_no
from playground.smol.things import (
    absent_name,
    joined,
    matching,
    single,
    with_article,
    written_colours,
)


def existence(rng: random.Random, scene: Scene) -> Asked:
    """Is there a star, a red star, a red object, a word?"""
    if rng.random() < 0.1:
        kind, name = rng.choice((("word", "word"), ("digit", "digit"), ("digit", "number")))
        found = scene.only(kind)
        full = f"No, there is no {name}." if found is None else f"Yes, there is the {name} {found.name}."
        slots = {"a": with_article(name), "xs": plural(name)}
        return Asked("existence", "existence", slots, yes_no(found is not None), full)
    absent = [c for c in COLOURS if c not in {i.colour for i in scene.items}]
    if rng.random() < 0.5:
        item = rng.choice(scene.shapes)
        names = [item.name, item.label, item.label, f"{item.size} {item.name}", f"{item.colour} object"]
        name = rng.choice(names[:-1] if item.colour in written_colours(scene) else names)
    elif rng.random() < 0.75 or not absent:
        name = absent_name(rng, scene, scene.pairs)
    else:
        name = f"{rng.choice(absent)} object"
    is_there = bool(matching(scene, name))
    full = f"Yes, there is {with_article(name)}." if is_there else f"No, there is no {name}."
    return Asked("existence", "existence", {"a": with_article(name), "xs": plural(name)}, yes_no(is_there), full)


def colour(rng: random.Random, scene: Scene) -> Asked | None:
    """What colour is the star? What colours are the stars?"""
    if rng.random() < ABSENT:
        name = absent_name(rng, scene, scene.pairs).split()[-1]
        if not matching(scene, name):
            return refusal("colour", name, {"x": name})
    if rng.random() < 0.2:
        name = rng.choice(scene.shapes).name
        found = list(dict.fromkeys(i.colour for i in matching(scene, name)))
        if len(matching(scene, name)) > 1:
            xs = plural(name)
            return Asked("colour", "colours", {"xs": xs}, joined(found), f"The {xs} are {joined(found)}.")
    chosen = single(rng, scene, scene.items, "colour")
    if chosen is None:
        return None
    item, name = chosen
    return Asked("colour", "colour", {"x": name}, item.colour, f"The {name} is {item.colour}.")


def shape(rng: random.Random, scene: Scene) -> Asked | None:
    """What shape is the red object? Which shapes are red? None where a word or a digit has the colour, too."""
    c = rng.choice(scene.shapes).colour
    missing = [x for x in COLOURS if not matching(scene, f"{x} object")]
    if missing and rng.random() < ABSENT:
        c = rng.choice(missing)
    if c in written_colours(scene):
        return None
    if c in missing:
        return refusal("shape", f"{c} object", {"c": c})
    found = matching(scene, f"{c} object")
    names = Counter(i.name for i in found)
    if len(found) == 1:
        return Asked("shape", "shape", {"c": c}, found[0].name, f"The {c} object is {with_article(found[0].name)}.")
    parts = [with_article(name) if number == 1 else plural(name) for name, number in names.items()]
    return Asked("shape", "shapes", {"c": c}, joined(list(names)), f"The {c} objects are {joined(parts)}.")


def size(rng: random.Random, scene: Scene) -> Asked | None:
    """Is the star small or large?"""
    if rng.random() < ABSENT:
        name = absent_name(rng, scene, scene.pairs)
        return refusal("size", name, {"x": name})
    chosen = single(rng, scene, scene.shapes, "size")
    if chosen is None:
        return None
    item, name = chosen
    return Asked("size", "size", {"x": name}, item.size, f"The {name} is {item.size}.")


def verify(rng: random.Random, scene: Scene) -> Asked | None:
    """Is the star red, or large?"""
    by = rng.choice(("colour", "colour", "size"))
    chosen = single(rng, scene, scene.shapes, by)
    if chosen is None:
        return None
    item, name = chosen
    true: str = getattr(item, by)
    wrong = rng.choice([x for x in (COLOURS if by == "colour" else SIZES) if x != true])
    asked = rng.choice((true, wrong))
    full = f"{yes_no(asked == true).capitalize()}, the {name} is {true}."
    return Asked("verify", "verify", {"x": name, "c": asked}, yes_no(asked == true), full)


def reading(rng: random.Random, scene: Scene) -> Asked | None:
    """What word, or which digit, is there, and what is written? None where nothing is, but for a few."""
    found = [(kind, item) for kind in ("word", "digit") if (item := scene.only(kind)) is not None]
    missing = [kind for kind in ("word", "digit") if scene.only(kind) is None]
    if missing and rng.random() < ABSENT:
        return refusal("reading", missing[0], {}, form=missing[0])
    if not found:
        return None
    form = rng.choice([*(kind for kind, _ in found), "written"])
    read = [item for kind, item in found if form in (kind, "written")]
    named = joined([f"the {item.kind} {item.name}" for item in read])
    is_or_are = "is" if len(read) == 1 else "are"
    full = f"{named.capitalize()} {is_or_are} written." if form == "written" else f"The {form} is {read[0].name}."
    return Asked("reading", form, {}, joined([item.name for item in read]), full)
