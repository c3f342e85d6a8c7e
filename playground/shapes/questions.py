"""Questions about a scene, one maker a kind; every question has one right answer, and answers are balanced.

A maker returns None where a scene does not allow its question. Makers pick the answer first where that balances it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from playground.shapes.captions import position_text
from playground.shapes.counting import Counted, count_options, count_two_options, plural
from playground.shapes.scene import COLOURS, DIGITS, SHAPES, WORDS, Item, Scene

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
EXPLAIN = "Name the evidence, then answer."
APART = 20  # pixels between two centres that make left, right, above and below beyond doubt: another row or column


@dataclass(frozen=True)
class Question:
    """``text`` has no instruction yet; ``evidence`` is what a reasoned answer states before the verdict."""

    kind: str
    text: str
    answer: str
    evidence: str = ""
    instruction: str = SHORT

    @property
    def prompt(self) -> str:
        """The question as it is asked."""
        return f"{self.text}\n{self.instruction}"


Maker = Callable[[random.Random, Scene], "Question | None"]


def _are(count: int) -> str:
    return f"There is {count}" if count == 1 else f"There are {count}"


def _listing(items: Sequence[Item]) -> str:
    return ", ".join(f"{i.size} {i.label} at the {position_text(i)}" for i in items) or "none"


def existence(rng: random.Random, scene: Scene) -> Question:
    """Is there a COLOUR SHAPE? The absent ones share a colour or shape with something that is there."""
    present = {i.label for i in scene.shapes}
    if rng.random() < 0.5:
        label, answer = rng.choice(sorted(present)), "yes"
    else:
        colours, names = {i.colour for i in scene.shapes}, {i.name for i in scene.shapes}
        near = [f"{c} {n}" for c, n in scene.pairs if c in colours or n in names]
        label, answer = rng.choice([x for x in near if x not in present]), "no"
    text = rng.choice(("Is there {} in the picture?", "Can you see {}?", "Does the picture show {}?"))
    article = "an" if label[0] in "aeiou" else "a"
    return Question(
        "existence", text.format(f"{article} {label}"), answer, f"{_are(sum(i.label == label for i in scene.shapes))}."
    )


def colour(rng: random.Random, scene: Scene) -> Question | None:
    """What colour is the only SHAPE?"""
    item = _unique(rng, scene.shapes, lambda i: i.name)
    if item is None:
        return None
    text = rng.choice(("What colour is the {}?", "Which colour does the {} have?", "The {} is of what colour?"))
    return Question("colour", text.format(item.name), item.colour, f"{_listing([item])}.")


def shape(rng: random.Random, scene: Scene) -> Question | None:
    """What shape has the only COLOUR thing?"""
    item = _unique(rng, scene.shapes, lambda i: i.colour)
    if item is None:
        return None
    text = rng.choice(("What shape is {}?", "Which shape is the {} object?", "What is the shape of the {} object?"))
    return Question("shape", text.format(item.colour), item.name, f"{_listing([item])}.")


def size(rng: random.Random, scene: Scene) -> Question | None:
    """Is the only COLOUR SHAPE small or large?"""
    item = _unique(rng, scene.shapes, lambda i: i.label)
    if item is None:
        return None
    text = rng.choice(("What size is the {}?", "Is the {} small or large?", "How big is the {}?"))
    return Question("size", text.format(item.label), item.size, f"{_listing([item])}.")


def count(rng: random.Random, scene: Scene) -> Question:
    """How many SHAPEs, COLOUR or SIZE objects, or objects at all?"""
    return _count_question(rng, "count", count_options(scene))


def count_two(rng: random.Random, scene: Scene) -> Question:
    """Counting by two attributes at once."""
    return _count_question(rng, "count_two", count_two_options(scene))


def relation(rng: random.Random, scene: Scene) -> Question | None:
    """Is A left of, right of, above or below B?"""
    found = apart(rng, scene)
    if found is None:
        return None
    a, b, (true, other) = found
    asked = rng.choice((true, other))
    text = rng.choice(("Is the {} {} the {}?", "Would you say the {} is {} the {}?", "Can one find the {} {} the {}?"))
    answer = "yes" if asked == true else "no"
    return Question("relation", text.format(a.label, asked, b.label), answer, _relation_evidence(rng, a, b, true))


def side(rng: random.Random, scene: Scene) -> Question | None:
    """Ask whether A is left or right of B, or above or below it; tests do not ask it.

    Whether a relation holds depends on its name and two positions at once, of which no part says anything by itself;
    which relation holds is learned sooner.
    """
    found = apart(rng, scene)
    if found is None:
        return None
    a, b, (true, _) = found
    either = "above or below" if true in ("above", "below") else "left or right of"
    text = rng.choice(("Is the {} {} the {}?", "Would you say the {} is {} the {}?"))
    evidence = _relation_evidence(rng, a, b, true)
    return Question("side", text.format(a.label, either, b.label), true.removesuffix(" of"), evidence)


def where(rng: random.Random, scene: Scene) -> Question | None:
    """Where is the only COLOUR SHAPE? Tests do not ask it: it teaches what relations stand on."""
    item = _unique(rng, scene.shapes, lambda i: i.label)
    if item is None:
        return None
    text = rng.choice(("Where is the {}?", "In which place is the {}?", "Where in the picture is the {}?"))
    return Question("where", text.format(item.label), position_text(item), f"{_listing([item])}.")


def compare(rng: random.Random, scene: Scene) -> Question | None:
    """Are there more As than Bs, or which are there more of?"""
    by = rng.choice(("name", "colour"))
    counts = Counter(getattr(i, by) for i in scene.shapes)
    names = SHAPES if by == "name" else COLOURS
    a, b = rng.choice(sorted(counts)), rng.choice(names)
    if a == b or counts[a] == counts[b]:
        return None
    if rng.random() < 0.5:
        a, b = b, a
    one, two = (plural(x) if by == "name" else f"{x} objects" for x in (a, b))
    evidence = f"{one}: {counts[a]}, {two}: {counts[b]}."
    if rng.random() < 0.5:
        text = rng.choice(("Are there more {} than {}?", "Do {} outnumber {}?"))
        return Question("compare", text.format(one, two), "yes" if counts[a] > counts[b] else "no", evidence)
    text = rng.choice(("Which are there more of, {} or {}?", "What is more frequent, {} or {}?"))
    return Question("compare", text.format(one, two), one if counts[a] > counts[b] else two, evidence)


def reading(rng: random.Random, scene: Scene) -> Question | None:
    """What word, or which digit, is written?"""
    written = [i for i in (scene.only("word"), scene.only("digit")) if i is not None]
    if not written:
        return None
    item = rng.choice(written)
    if item.kind == "word":
        text = rng.choice(("What word is written in the picture?", "What does the text say?", "Read the word."))
    else:
        text = rng.choice(("Which digit is in the picture?", "What number is shown?", "Read the digit."))
    return Question("reading", text, item.name, f"The {item.kind} {item.name} in {item.colour}.")


def choice(rng: random.Random, scene: Scene) -> Question | None:
    """One of the open kinds again, with four options to choose from."""
    question = rng.choice((colour, shape, count_two, reading))(rng, scene)
    if question is None:
        return None
    pool = next(p for p in (COLOURS, SHAPES, DIGITS, WORDS) if question.answer in p)
    wrong = [x for x in (pool[:5] if question.kind == "count_two" else pool) if x != question.answer]
    options = [question.answer, *rng.sample(wrong, 3)]
    rng.shuffle(options)
    lines = "\n".join(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=True))
    letter = "ABCD"[options.index(question.answer)]
    return Question("choice", f"{question.text}\n{lines}", letter, f"{question.answer}.", LETTER)


KINDS: dict[str, Maker] = {
    "existence": existence,
    "colour": colour,
    "shape": shape,
    "size": size,
    "count": count,
    "count_two": count_two,
    "relation": relation,
    "compare": compare,
    "reading": reading,
    "choice": choice,
}


# What training draws from: what relations stand on, and more of what is learned last.
TRAINING: tuple[Maker, ...] = (
    *KINDS.values(),
    where,
    *(side,) * 2,
    *(relation,) * 4,
    *(choice,) * 6,
    *(count, count_two) * 3,
)


def normalise(answer: str) -> str:
    """Answers are compared in lower case, without surrounding space and without a full stop."""
    return answer.strip().rstrip(".").strip().lower()


def _count_question(rng: random.Random, kind: str, options: list[Counted]) -> Question:
    """Pick the number first, so that 0 and 1 do not crowd out the rest."""
    numbers = sorted({len(found) for _, found in options})
    wanted = rng.choice(numbers)
    name, found = rng.choice([o for o in options if len(o[1]) == wanted])
    text = rng.choice(
        ("How many {} are there?", "Count the {}.", "What is the number of {}?", "How many {} can you see?")
    )
    return Question(kind, text.format(name), str(wanted), f"{_listing(found)}.")


def _unique(rng: random.Random, items: Sequence[Item], key: Callable[[Item], str]) -> Item | None:
    counts = Counter(key(i) for i in items)
    single = [i for i in items if counts[key(i)] == 1]
    return rng.choice(single) if single else None


def _relation_evidence(rng: random.Random, a: Item, b: Item, true: str) -> str:
    """Where both are and what is true of them, or the latter alone: the last step from there is one to learn."""
    return f"{true}." if rng.random() < 0.5 else f"{_listing([a, b])}: {true}."


def apart(rng: random.Random, scene: Scene) -> tuple[Item, Item, tuple[str, str]] | None:
    """Two shapes that their labels name, and what is true of the first towards the second, with its opposite."""
    counts = Counter(i.label for i in scene.shapes)
    single = [i for i in scene.shapes if counts[i.label] == 1]
    if len(single) < 2:
        return None
    a, b = rng.sample(single, 2)
    gaps = [(a.x - b.x, ("left of", "right of")), (a.y - b.y, ("above", "below"))]
    axes = [(gap, names) for gap, names in gaps if abs(gap) >= APART]
    if not axes:
        return None
    gap, (smaller, larger) = rng.choice(axes)
    return a, b, (smaller, larger) if gap < 0 else (larger, smaller)
