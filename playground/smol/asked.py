"""A question before it is put into words: what fills its form, and what answers it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from playground.shapes.scene import Scene

ABSENT = 0.1  # of the questions about a thing that ask for one that is not there


@dataclass(frozen=True)
class Asked:
    """What is asked: ``slots`` fill a wording of ``form``; ``short`` answers in a word or two, ``full`` in a sentence.

    options: four to choose from, in order, where the question gives them; ``short`` is then the right one.
    """

    kind: str
    form: str
    slots: dict[str, str]
    short: str
    full: str
    options: tuple[str, ...] = ()


Maker = Callable[[random.Random, Scene], "Asked | None"]


def yes_no(holds: bool) -> str:
    """Return the short answer to a question of whether something holds."""
    return "yes" if holds else "no"


def refusal(kind: str, name: str, slots: dict[str, str], form: str = "") -> Asked:
    """Return a question of a kind about a thing that is not there, which its answer says; by default in its form."""
    missing = f"There is no {name}."
    return Asked(kind, form or kind, slots, missing, missing)
