"""Questions of where things are, and how they lie to one another."""

from __future__ import annotations

import random

from playground.shapes.questions import apart
from playground.shapes.scene import Item, Scene
from playground.smol.asked import ABSENT, Asked, refusal, yes_no
from playground.smol.things import POSITIONS, absent_name, described, position, single, unique_name

_SIDES = {"at the top": "top", "at the bottom": "bottom", "on the left": "left", "on the right": "right"}


def _two(rng: random.Random, scene: Scene) -> tuple[str, str, tuple[str, str]] | None:
    found = apart(rng, scene)
    if found is None:
        return None
    a, b, relations = found
    names = [unique_name(rng, scene, item) or item.label for item in (a, b)]
    return f"the {names[0]}", f"the {names[1]}", relations


def relation(rng: random.Random, scene: Scene) -> Asked | None:
    """Is A left of, right of, above or below B?"""
    found = _two(rng, scene)
    if found is None:
        return None
    a, b, (true, other) = found
    asked = rng.choice((true, other))
    if rng.random() < ABSENT / 2:
        missing = absent_name(rng, scene, scene.pairs)
        return refusal("relation", missing, {"a_": a, "rel": asked, "b_": f"the {missing}"})
    full = f"{yes_no(asked == true).capitalize()}, {a} is {true} {b}."
    return Asked("relation", "relation", {"a_": a, "rel": asked, "b_": b}, yes_no(asked == true), full)


def side(rng: random.Random, scene: Scene) -> Asked | None:
    """Is A left or right of B, or above or below it?"""
    found = _two(rng, scene)
    if found is None:
        return None
    a, b, (true, _) = found
    either = "above or below" if true in ("above", "below") else "left or right of"
    full = f"{a[0].upper()}{a[1:]} is {true} {b}."
    return Asked("side", "side", {"a_": a, "either": either, "b_": b}, true.removesuffix(" of"), full)


def where(rng: random.Random, scene: Scene) -> Asked | None:
    """Where is the star? Not where a word is: it lies across two cells."""
    if rng.random() < ABSENT:
        name = absent_name(rng, scene, scene.pairs)
        return refusal("where", name, {"x": name})
    chosen = single(rng, scene, [item for item in scene.items if item.kind != "word"])
    if chosen is None:
        return None
    item, name = chosen
    at = position(item)
    return Asked("where", "where", {"x": name}, at.split(" ", 2)[2], f"The {name} is {at}.")


def at(rng: random.Random, scene: Scene) -> Asked | None:
    """What is at the top left?"""
    word = scene.only("word")
    taken = {position(i): i for i in scene.items if i is not word}
    # A word lies across two cells: neither is empty, and neither is all its own.
    covered = set() if word is None else {position(_moved(word, dx)) for dx in (-16, 0, 16)}
    occupied = taken.keys() | covered
    clear = [p for p in POSITIONS.values() if _is_clear(p, occupied)]
    empty = [p for p in clear if p not in occupied]
    if empty and rng.random() < 0.2:
        spot = rng.choice(empty)
        return Asked("at", "at", {"position": _asked_for(rng, spot)}, "nothing", f"There is nothing {spot}.")
    spots = sorted(taken.keys() & set(clear))
    if not spots:
        return None
    spot = rng.choice(spots)
    item = taken[spot]
    slots = {"position": _asked_for(rng, spot)}
    full = f"There is {described(item)} {spot}."
    if item.kind == "shape":
        return Asked("at", "at", slots, item.label, full)
    return Asked("at", "at", {**slots, "thing": "thing"}, f"{item.kind} {item.name}", full)


def _asked_for(rng: random.Random, spot: str) -> str:
    """Say a spot as a question may; answers say "middle", which has one spelling."""
    return spot.replace("middle", rng.choice(("middle", "centre")))


def _is_clear(spot: str, occupied: set[str]) -> bool:
    """Return whether a spot means one cell: "on the left" means all three on the left where the others hold things."""
    side = _SIDES.get(spot)
    return side is None or not any(side in other for other in occupied - {spot})


def _moved(item: Item, dx: int) -> Item:
    return Item(item.kind, item.name, item.colour, item.size, item.x + dx, item.y)
