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
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 320, 150, 40, 26, 12, 12
STYLE = """
.history svg { width: 100%; max-width: 460px; display: block; font-size: 10px; fill: var(--body-text-color); }
.history .axis { stroke: #8886; fill: none; }
.history circle { fill: var(--plan-on, #2b5fb3); stroke: var(--plan-on, #2b5fb3); stroke-width: 1.5px; }
.history circle.knew { fill: var(--block-background-fill); }
.history .dot { fill: #fff; text-anchor: middle; dominant-baseline: central; font-size: 9px; font-weight: 600; }
.history .knew + .dot { fill: var(--body-text-color); }
.history table { width: 100%; font-size: 0.85em; border-collapse: collapse; }
.history th, .history td { text-align: left; padding: 2px 6px; border: none; font-weight: normal; overflow-wrap: anywhere; }
.history thead th { color: var(--body-text-color-subdued); }
"""


def history_chart(answers: Sequence[Answered]) -> str:
    """Return HTML of the newest answers: a chart, and the same as a table; "" before there are two."""
    with_budget = [one for one in answers if one.reply.get("latency_budget")]
    if len(with_budget) < 2:
        return ""
    numbered = list(enumerate(with_budget, start=1))[-SHOWN:]
    known = "<p>Hollow: some of the prompt was known from before.</p>" if any(knew(one) for _, one in numbered) else ""
    head = "<tr><th scope='col'></th><th scope='col'>budget</th><th scope='col'>first token</th><th scope='col'>answer</th></tr>"
    lines = "".join(_line(number, one) for number, one in reversed(numbered))
    return (
        f"<section class='history' aria-label='Answers so far'><h3>Answers so far</h3>{_chart(numbered)}{known}"
        f"<table><thead>{head}</thead><tbody>{lines}</tbody></table></section>"
    )


def _line(number: int, one: Answered) -> str:
    text = one.answer if len(one.answer) <= MAX_CHARACTERS else f"{one.answer[:MAX_CHARACTERS]}…"
    cells = (budget_of(one), f"{answer_ms(one):.0f} ms", text)
    return f"<tr><th scope='row'>{number}</th>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"


def _chart(numbered: Sequence[tuple[int, Answered]]) -> str:
    highest = _round_up(max(answer_ms(one) for _, one in numbered))
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(share: float) -> float:
        return LEFT + width * share

    def y(ms: float) -> float:
        return TOP + height * (1 - ms / highest)

    dots = "".join(
        f"<circle class='{'knew' if knew(one) else 'read'}' cx='{x(_share(one)):.1f}' cy='{y(answer_ms(one)):.1f}' r='8'/>"
        f"<text class='dot' x='{x(_share(one)):.1f}' y='{y(answer_ms(one)):.1f}'>{number}</text>"
        for number, one in numbered
    )
    ticks = "".join(
        f"<text x='{x(share):.1f}' y='{HEIGHT - 14}' text-anchor='middle'>{share:.0%}</text>" for share in (0, 0.5, 1)
    )
    return (
        f"<svg role='img' viewBox='0 0 {WIDTH} {HEIGHT}' aria-label='Time to first token by the share of the prefill "
        f"that ran, of {len(numbered)} answers: the table has the figures'>"
        f"<path class='axis' d='M{LEFT} {TOP}V{y(0):.1f}H{WIDTH - RIGHT}M{LEFT} {y(highest):.1f}H{WIDTH - RIGHT}'/>{ticks}"
        f"<text x='{LEFT + width / 2}' y='{HEIGHT - 2}' text-anchor='middle'>share of the prefill that ran</text>"
        f"<text x='{LEFT - 4}' y='{y(highest):.1f}' text-anchor='end' dominant-baseline='middle'>{highest:g} ms</text>"
        f"<text x='{LEFT - 4}' y='{y(0):.1f}' text-anchor='end' dominant-baseline='middle'>0</text>{dots}</svg>"
    )


def _share(one: Answered) -> float:
    report: dict[str, Any] = one.reply["latency_budget"]
    return min(1.0, float(report["prefill_share"]))


def _round_up(ms: float) -> float:
    """Return the next 1, 2 or 5 times a power of ten above ``ms``."""
    power = 10.0 ** math.floor(math.log10(max(ms, 1e-3)))
    return next(step * power for step in (1, 2, 5, 10) if ms <= step * power)
