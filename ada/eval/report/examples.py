"""Picks questions worth a look: of each kind one whose answer changes with the budget, where there is one."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ada.eval.report.markdown import Cells
from ada.eval.report.panels import data_url
from ada.eval.stats.results import Row, largest_first, own_planners

MAX_SIDE = 320  # pixels of a shown image


@dataclass(frozen=True)
class Example:
    """A test question, and what each model answers at each budget under its first planner.

    ``image``: a data URL, or None; ``marks``: "right" or "wrong", by line and column of ``answers`` after the heading.
    """

    kind: str
    text: str
    truth: str
    image: str | None
    answers: Cells
    marks: Mapping[tuple[int, int], str]


def examples(rows: Sequence[Row]) -> list[Example]:
    """Make an example of each kind of test question."""
    leaders = own_planners(rows)
    return [_example(leaders, position) for position in pick(leaders[0])]


def pick(leader: Sequence[Row]) -> list[int]:
    """Return positions of one test question of each kind.

    It is the first that is right at the largest budget and wrong at the largest number of the others, so that an
    example shows what is lost.
    """
    largest, *smaller = largest_first(leader)
    best: dict[str, tuple[int, int]] = {}
    for position, item in enumerate(largest.main.questions.items):
        wrong = sum(not row.main.right[position] for row in smaller) if largest.main.right[position] else -1
        if item.kind not in best or wrong > best[item.kind][0]:
            best[item.kind] = (wrong, position)
    return [position for _, position in best.values()]


def _example(leaders: Sequence[Sequence[Row]], position: int) -> Example:
    item = leaders[0][0].main.questions.items[position]
    answers = [["", *(f"{row.run.budget_text}" for row in leaders[0])]]
    answers += [[group[0].name, *(row.main.texts[position] or "(nothing)" for row in group)] for group in leaders]
    marks = {
        (line, column): "right" if row.main.right[position] else "wrong"
        for line, group in enumerate(leaders)
        for column, row in enumerate(group, start=1)
    }
    return Example(item.kind, item.question.text, item.truth, _image_url(leaders[0][0], position), answers, marks)


def _image_url(row: Row, position: int) -> str | None:
    load = row.main.questions.items[position].question.open_image
    if load is None:
        return None
    image = load()
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return data_url({"png": buffer.getvalue()}, "png")
