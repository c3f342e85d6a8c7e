"""Questions as people ask them, one maker or two a kind, each with a short answer and a whole sentence.

A maker returns None where a scene does not allow its question. Makers pick the answer first where that balances it.
"""

from __future__ import annotations

import random

from playground.shapes.scene import COLOURS, DIGITS, SHAPES, WORDS, Scene
from playground.smol.asked import Asked, Maker
from playground.smol.attribute_questions import colour, existence, reading, shape, size, verify
from playground.smol.count_questions import compare, count, count_two, more
from playground.smol.position_questions import at, relation, side, where
from playground.smol.things import POSITIONS


def choice(rng: random.Random, scene: Scene) -> Asked | None:
    """One of the open kinds again, with four options to choose from."""
    asked = rng.choice((colour, shape, count, count_two, reading, where))(rng, scene)
    pools = (COLOURS, SHAPES, DIGITS[:7], DIGITS, WORDS, tuple(p.split(" ", 2)[2] for p in POSITIONS.values()))
    pool = next((p for p in pools if asked is not None and asked.short in p), None)
    if asked is None or pool is None:
        return None
    options = [asked.short, *rng.sample([x for x in pool if x != asked.short], 3)]
    rng.shuffle(options)
    return Asked("choice", asked.form, asked.slots, asked.short, asked.full, tuple(options))


# In the order in which a test file asks them.
KINDS: dict[str, tuple[Maker, ...]] = {
    "existence": (existence,),
    "colour": (colour,),
    "shape": (shape,),
    "size": (size,),
    "count": (count,),
    "count_two": (count_two,),
    "relation": (relation,),
    "side": (side,),
    "where": (where,),
    "at": (at,),
    "compare": (compare, more),
    "reading": (reading,),
    "verify": (verify,),
    "choice": (choice,),
}
