"""Every question has the answer that a slow look at the scene gives, short and as a sentence."""

import re

import pytest

from playground.shapes.scene import CELL, COLOURS, SHAPES, SIZES, sample_scene, scene_rng
from playground.smol.questions import KINDS
from playground.smol.wordings import THINGS

NUMBER = {"no": 0, **{str(n): n for n in range(10)}}
ROWS = {"top": 0, "bottom": 2}
COLUMNS = {"left": 0, "right": 2}


def asked(kind, scenes=400, split="test"):
    """Questions of a kind, with their scenes."""
    for index in range(scenes):
        rng = scene_rng(split, 5, index)
        scene = sample_scene(rng, split)
        question = KINDS[kind][index % len(KINDS[kind])](rng, scene)
        if question is not None:
            yield scene, question


def singular(name):
    """Any name in the singular, whatever follows it."""
    *attributes, noun = name.split()
    for one in (*SHAPES, *THINGS):
        if noun in (one, f"{one}s", f"{one}es"):
            return [*attributes, one]
    raise AssertionError(name)


def meant(scene, name):
    """The shapes that a name means, found word by word; no name may mean a word or a digit, too."""
    *attributes, noun = singular(name.removeprefix("the ").removeprefix("a ").removeprefix("an "))
    if noun in THINGS and (noun != "shape" or {*attributes} & {*COLOURS}):
        written = [i for i in scene.items if i.kind != "shape"]
        assert not [i for i in written if not {*attributes} & {*COLOURS} or i.colour in attributes], name
    found = [i for i in scene.items if i.kind == "shape" and noun in (i.name, *THINGS)]
    for word in attributes:
        assert word in COLOURS + SIZES
        found = [i for i in found if word in (i.colour, i.size)]
    return found


def one(scene, name):
    """The one item that a name means."""
    name = name.removeprefix("the ")
    kind = {"word": "word", "text": "word", "digit": "digit", "number": "digit"}.get(name)
    found = [i for i in scene.items if i.kind == kind] if kind else meant(scene, name)
    assert len(found) == 1, name
    return found[0]


def is_refusal(scene, question):
    """Whether the question is answered by saying that a thing is not there, which then is so."""
    match = re.fullmatch(r"There is no (.*)\.", question.short)
    if match:
        assert question.full == question.short
        name = match[1]
        assert not ([i for i in scene.items if i.kind == name] if name in ("word", "digit") else meant(scene, name))
    return bool(match)


def cell(words):
    """Row and column of a position in words."""
    parts = re.sub("centre|center|middle", "", words).split()[-2:]
    row = next((ROWS[p] for p in parts if p in ROWS), 1)
    return row, next((COLUMNS[p] for p in parts if p in COLUMNS), 1)


def cell_of(item):
    return item.y // CELL, min(2, item.x // CELL)


def spread(item):
    """How many columns on an item reaches to either side: a word lies across two cells."""
    return {(item.x + dx) // CELL - item.x // CELL for dx in ((-16, 0, 16) if item.kind == "word" else (0,))}


def test_existence():
    answers = []
    for scene, q in asked("existence"):
        name = q.slots["a"].split(" ", 1)[1]
        if name in ("word", "digit", "number"):
            found = [i for i in scene.items if i.kind == ("word" if name == "word" else "digit")]
            assert not found or found[0].name in q.full
        else:
            found = meant(scene, name)
            assert q.full == (f"Yes, there is {q.slots['a']}." if found else f"No, there is no {name}.")
        assert q.short == ("yes" if found else "no") and q.full.lower().startswith(q.short)
        answers.append(q.short)
    assert 0.4 < answers.count("yes") / len(answers) < 0.6


def test_colour():
    for scene, q in asked("colour"):
        if is_refusal(scene, q):
            continue
        found = meant(scene, q.slots["xs"]) if q.form == "colours" else [one(scene, q.slots["x"])]
        assert (len(found) > 1) == (q.form == "colours")
        assert {i.colour for i in found} == set(re.split(", | and ", q.short))
        assert all(i.colour in q.full for i in found)


def test_shape():
    for scene, q in asked("shape"):
        assert not [i for i in scene.items if i.kind != "shape" and i.colour == q.slots["c"]], "it is red, too"
        if not is_refusal(scene, q):
            found = meant(scene, f"{q.slots['c']} object")
            assert (len(found) > 1) == (q.form == "shapes")
            assert {i.name for i in found} == set(re.split(", | and ", q.short))
            for name in {i.name for i in found}:
                several = sum(i.name == name for i in found) > 1
                assert re.search(rf"\b{name}(e?s)?\b", q.full)[0] != name if several else f" {name}" in q.full


def test_size():
    for scene, q in asked("size"):
        if not is_refusal(scene, q):
            assert one(scene, q.slots["x"]).size == q.short and q.full.endswith(f"is {q.short}.")


@pytest.mark.parametrize("kind", ["count", "count_two"])
def test_counting(kind):
    seen = set()
    for scene, q in asked(kind):
        assert int(q.short) == len(meant(scene, q.slots["xs"]))
        assert NUMBER[re.match(r"There (?:is|are) (\w+) ", q.full)[1]] == int(q.short)
        seen.add(q.short)
    assert {"0", "1", "2", "3"} <= seen


def holds(relation, a, b):
    """Whether a relation holds between two items, by a clear distance."""
    gap = {"left": b.x - a.x, "right": a.x - b.x, "above": b.y - a.y, "below": a.y - b.y}[relation.split()[0]]
    assert abs(gap) >= 20
    return gap > 0


def test_relation():
    answers = []
    for scene, q in asked("relation"):
        if not is_refusal(scene, q):
            a, b = (one(scene, q.slots[key]) for key in ("a_", "b_"))
            assert q.short == ("yes" if holds(q.slots["rel"], a, b) else "no")
            said = re.fullmatch(rf"(?:Yes|No), {q.slots['a_']} is (.*) {q.slots['b_']}\.", q.full)[1]
            assert holds(said, a, b) and q.full.lower().startswith(q.short)
            answers.append(q.short)
    assert 0.4 < answers.count("yes") / len(answers) < 0.6


def test_side():
    for scene, q in asked("side"):
        assert q.short in q.slots["either"] and holds(q.short, *(one(scene, q.slots[k]) for k in ("a_", "b_")))
        assert f" {q.short} " in q.full


def test_where():
    for scene, q in asked("where"):
        if not is_refusal(scene, q):
            item = one(scene, q.slots["x"])
            assert item.kind != "word", "it lies across two cells"
            assert cell(q.short) == cell_of(item) == cell(q.full.rstrip("."))


def test_at():
    nothing = 0
    for scene, q in asked("at"):
        there = [i for i in scene.items if i.kind != "word" and cell_of(i) == cell(q.slots["position"])]
        if q.short == "nothing":
            nothing += 1
            word = scene.only("word")
            assert not there and (word is None or cell_of(word) != cell(q.slots["position"]))
            assert q.full.startswith("There is nothing ")
        else:
            (item,) = there
            assert item.name in q.short and item.colour in q.full
            assert item.kind == "shape" or q.slots["thing"] == "thing", "a digit is no shape"
        side = cell(q.slots["position"])
        if 1 in side and side != (1, 1):  # "on the left" means one cell where the rest of the column is empty
            axis = side.index(2) if 2 in side else side.index(0)
            touched = [(c[0], c[1] + d) for i in scene.items for c in [cell_of(i)] for d in spread(i)]
            assert {c for c in touched if c[axis] == side[axis]} <= {side}
    assert nothing > 20


def test_compare():
    for scene, q in asked("compare"):
        m, n = (len(meant(scene, q.slots[key])) for key in ("xs", "ys"))
        if q.form == "compare":
            assert q.short == ("yes" if m > n else "no")
        else:
            assert m != n and q.short == q.slots["xs" if m > n else "ys"]
        said = "more" if m > n else "fewer" if m < n else "as many"
        assert (f"there are {said} {q.slots['xs']} " in q.full) if q.form == "compare" else q.short in q.full


def test_reading():
    forms, refused = [], 0
    for scene, q in asked("reading"):
        forms.append(q.form)
        if is_refusal(scene, q):
            refused += 1
            continue
        read = [scene.only(kind) for kind in ("word", "digit") if q.form in (kind, "written") and scene.only(kind)]
        assert q.short == " and ".join(item.name for item in read)
        if q.form == "written":
            named = " and ".join(f"the {item.kind} {item.name}" for item in read)
            assert q.full.lower() == f"{named} {'is' if len(read) == 1 else 'are'} written."
        else:
            assert q.full == f"The {q.form} is {q.short}."
    assert 0 < refused < 0.2 * len(forms) and {*forms} == {"word", "digit", "written"}


def test_verify():
    for scene, q in asked("verify"):
        item = one(scene, q.slots["x"])
        assert q.short == ("yes" if q.slots["c"] in (item.colour, item.size) else "no")
        assert q.full.split()[-1].rstrip(".") in (item.colour, item.size)


def test_choice():
    letters = set()
    for _, q in asked("choice"):
        assert len(set(q.options)) == 4 and q.options.count(q.short) == 1
        letters.add(q.options.index(q.short))
    assert letters == {0, 1, 2, 3}
