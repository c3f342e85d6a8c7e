"""Draws the answers of a conversation as one chart: what share of the prefill ran, and when the first token came."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

from ada.serve.demo.figures import answer_ms, budget_of, knew
from llava.serve.web.conversation_state import Answered

SHOWN = 8  # answers, the newest
MAX_CHARACTERS = 60  # of an answer
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 360, 160, 58, 30, 14, 22
STYLE = """
.history svg { width: 100%; max-width: 460px; display: block; font-size: 11px; fill: var(--body-text-color); }
.history .axis { stroke: #8886; fill: none; }
.history circle { fill: var(--plan-on, #2b5fb3); stroke: var(--plan-on, #2b5fb3); stroke-width: 1.5px; }
.history circle.knew { fill: var(--block-background-fill); }
.history .dot { fill: #fff; text-anchor: middle; dominant-baseline: central; font-size: 9px; font-weight: 600; }
.history .knew + .dot { fill: var(--body-text-color); }
.history td { overflow-wrap: anywhere; }
.history p { font-size: 0.85em; margin: 4px 0; color: var(--body-text-color-subdued); }
"""


def history_chart(answers: Sequence[Answered]) -> str:
    """Return HTML of the newest answers: a chart, and the same as a table; "" before there are two."""
    with_budget = [one for one in answers if one.reply.get("latency_budget")]
    if len(with_budget) < 2:
        return ""
    numbered = list(enumerate(with_budget, start=1))[-SHOWN:]
    known = (
        "<p>Hollow: some of the prompt was read before, which saves time.</p>"
        if any(knew(one) for _, one in numbered)
        else ""
    )
    columns = "".join(f"<th scope='col'>{name}</th>" for name in ("budget", "first token", "answer"))
    lines = "".join(_line(number, one) for number, one in reversed(numbered))
    return (
        f"<section class='history' aria-label='Answers so far'><h2>Answers so far</h2>{_chart(numbered)}{known}"
        f"<table><thead><tr><td></td>{columns}</tr></thead><tbody>{lines}</tbody></table></section>"
    )


def _line(number: int, one: Answered) -> str:
    text = one.answer if len(one.answer) <= MAX_CHARACTERS else f"{one.answer[:MAX_CHARACTERS]}…"
    cells = (budget_of(one), f"{answer_ms(one):.0f} ms", text)
    return f"<tr><th scope='row'>{number}</th>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"


def _chart(numbered: Sequence[tuple[int, Answered]]) -> str:
    highest = _round_up(max(answer_ms(one) for _, one in numbered))
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    dots = "".join(
        _dot(number, one, LEFT + width * _share(one), TOP + height * (1 - answer_ms(one) / highest))
        for number, one in numbered
    )
    ticks = "".join(
        f"<text x='{LEFT + width * share:g}' y='{HEIGHT - 16}' text-anchor='middle'>{100 * share:g} %</text>"
        for share in (0, 0.5, 1)
    )
    marks = "".join(
        f"<path class='axis' d='M{LEFT} {y}h{width}'/>"
        f"<text x='{LEFT - 6}' y='{y}' text-anchor='end' dominant-baseline='middle'>{ms:g} ms</text>"
        for y, ms in ((TOP, highest), (TOP + height / 2, highest / 2), (TOP + height, 0))
    )
    label = f"Time to first token by the share of the prefill that ran, of {len(numbered)} answers: as in the table"
    return (
        f"<svg role='img' viewBox='0 0 {WIDTH} {HEIGHT}' aria-label='{label}'>{marks}{ticks}"
        f"<text x='{LEFT + width / 2:g}' y='{HEIGHT - 2}' text-anchor='middle'>share of the prefill that ran</text>"
        f"{dots}</svg>"
    )


def _dot(number: int, one: Answered, x: float, y: float) -> str:
    kind, at = "knew" if knew(one) else "read", f"x='{x:.1f}' y='{y:.1f}'"
    return f"<circle class='{kind}' cx='{x:.1f}' cy='{y:.1f}' r='8'/><text class='dot' {at}>{number}</text>"


def _share(one: Answered) -> float:
    report: dict[str, Any] = one.reply["latency_budget"]
    return min(1.0, float(report["prefill_share"]))


def _round_up(ms: float) -> float:
    """Return the next 1, 2 or 5 times a power of ten above ``ms``."""
    power = 10.0 ** math.floor(math.log10(max(ms, 1e-3)))
    return next(step * power for step in (1, 2, 5, 10) if ms <= step * power)
