"""The chart of a conversation's answers, read back from its SVG."""

import re
import xml.etree.ElementTree as ET

import pytest

from ada.serve.demo.history_chart import BOTTOM, HEIGHT, LEFT, RIGHT, SHOWN, TOP, WIDTH, history_chart
from llava.serve.web.conversation_state import Answered


def answered(share: float, ms: float, text: str = "sun", requested=None, requested_ms=None, known=0) -> Answered:
    report = {"requested": requested, "requested_ms": requested_ms, "prefill_share": share, "known_tokens": [known]}
    reply = {"time_to_first_token_ms": ms + 3.0, "queue_ms": 3.0, "latency_budget": report}
    return Answered("?", text, reply)


def dots(shown: str) -> list[tuple[str, float, float]]:
    """(kind, share, milliseconds) of each dot, of a chart up to 100 ms."""
    svg = ET.fromstring(re.search("<svg.*?</svg>", shown)[0])
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    return [
        (
            circle.get("class"),
            (float(circle.get("cx")) - LEFT) / width,
            100 * (1 - (float(circle.get("cy")) - TOP) / height),
        )
        for circle in svg.iter("circle")
    ]


def test_chart_appears_with_the_second_answer_under_a_budget() -> None:
    one, plain = answered(1, 50), Answered("?", "!", {"latency_budget": None})
    assert history_chart([]) == history_chart([one]) == history_chart([one, plain]) == ""
    assert history_chart([one, one]) != ""


def test_dots_are_at_share_and_time_hollow_where_the_prompt_was_known() -> None:
    shown = history_chart([answered(1.0, 80), answered(0.5, 40, known=7)])
    [(full, x, y), (half, x2, y2)] = dots(shown)
    assert (full, half) == ("read", "knew")
    assert [x, x2] == pytest.approx([1.0, 0.5], abs=0.001) and [y, y2] == pytest.approx([80, 40], abs=0.2)
    assert "Hollow" in shown and "Hollow" not in history_chart([answered(1.0, 80)] * 2)


def test_table_says_budgets_times_and_answers_newest_first() -> None:
    shown = history_chart([answered(1, 80, requested=1.0), answered(0.5, 40.4, "<b>", requested_ms=45), answered(1, 9)])
    lines = [re.findall("<t[hd].*?>(.*?)</t[hd]>", line) for line in re.findall("<tr>(.*?)</tr>", shown)]
    assert lines == [
        ["", "budget", "first token", "answer"],
        ["3", "none", "9 ms", "sun"],
        ["2", "45 ms", "40 ms", "&lt;b&gt;"],
        ["1", "100 %", "80 ms", "sun"],
    ]


def test_chart_keeps_the_newest_answers() -> None:
    shown = history_chart([answered(1, 80)] * (SHOWN + 3))
    assert len(dots(shown)) == SHOWN and f"<th scope='row'>{SHOWN + 3}</th>" in shown
    assert "<th scope='row'>3</th>" not in shown


@pytest.mark.parametrize(("ms", "highest"), [(0.4, "0.5"), (80, "100"), (101, "200"), (4000, "5000")])
def test_axis_ends_at_a_round_time_above_all(ms, highest) -> None:
    assert f">{highest} ms</text>" in history_chart([answered(1, ms)] * 2)


def test_long_answers_are_cut() -> None:
    assert "a" * 60 + "…" in history_chart([answered(1, 5, "a" * 99)] * 2)
