"""Questions worth a look: of every kind one whose answer changes with the budget, where there is one."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from ada.eval.stats.results import Row

LARGEST = 320  # pixels of a shown picture, on its longer side


def pick(leader: Sequence[Row]) -> list[int]:
    """Places of one test question of every kind: the first that is right at the largest budget and wrong at most
    others, so that an example shows what is lost; right means and wrong means are in the tables."""
    whole, *smaller = sorted(leader, key=lambda row: -row.run.budget.fraction)
    best: dict[str, tuple[int, int]] = {}
    for place, item in enumerate(whole.main.questions.items):
        wrong = sum(not row.main.right[place] for row in smaller) if whole.main.right[place] else -1
        if item.kind not in best or wrong > best[item.kind][0]:
            best[item.kind] = (wrong, place)
    return [place for _, place in best.values()]


def picture_url(row: Row, place: int) -> str | None:
    """The question's picture as an address that holds it; None where there is none."""
    load = row.main.questions.items[place].question.open_image
    if load is None:
        return None
    image = load()
    image.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return data_url(buffer.getvalue(), "image/png")


def data_url(content: bytes, sort: str) -> str:
    """An address that holds its content."""
    return f"data:{sort};base64,{base64.b64encode(content).decode('ascii')}"
