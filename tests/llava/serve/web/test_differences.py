"""What is said about two answers to one question."""

import re

import pytest

from llava.serve.web.conversation_state import Answered
from llava.serve.web.differences import change, differences


def answered(text: str, first_ms: float | None = None, token_ms=()) -> Answered:
    times = {} if first_ms is None else {"time_to_first_token_ms": first_ms, "queue_ms": 1.0, "token_ms": token_ms}
    return Answered("?", text, times)


@pytest.mark.parametrize(
    ("left", "right", "said"),
    [(200, 100, "\N{MINUS SIGN}50 %"), (100, 110, "+10 %"), (3, 3, "same"), (1000, 1001, "same"), (0, 5, "same")],
)
def test_change_is_in_percent_of_the_left_figure(left, right, said) -> None:
    assert change(left, right) == said


def test_words_that_the_other_answer_has_not_are_marked_literally() -> None:
    shown = differences([], answered("a red <b> star"), answered("a blue star there"))
    marked = re.findall("<mark>(.*?)</mark>", shown)
    assert marked == ["red &#60;b&#62;", "blue", "there"]
    assert shown.startswith("<p><strong>The answers differ.</strong></p>")


@pytest.mark.parametrize(
    ("left_ms", "right_ms", "said"),
    [
        (91.0, 51.0, "Both answers are the same; B began 40 ms earlier."),
        (51.0, 91.0, "Both answers are the same; B began 40 ms later."),
        (51.0, 51.2, "Both answers are the same; both first tokens took 50 ms."),
    ],
)
def test_sentence_says_whose_first_token_came_earlier(left_ms, right_ms, said) -> None:
    shown = differences([], answered("a", left_ms, [2.0, 4.0]), answered("a", right_ms, [6.0]))
    assert f"<strong>{said}</strong>" in shown and "<mark>" not in shown
    assert "inter-token latency</th><td>3.0 ms</td><td>6.0 ms</td><td>+100 %</td>" in shown


def test_answers_of_one_token_have_no_inter_token_latency() -> None:
    assert "inter-token" not in differences([], answered("a", 9.0), answered("a", 9.0, [1.0]))


def test_answers_of_upstreams_workers_are_compared_without_times() -> None:
    assert differences([], answered("a"), answered("a")) == "<p><strong>Both answers are the same.</strong></p>"
