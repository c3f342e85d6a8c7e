"""Contestants: read from flags, and filled with a deadline."""

import pytest

from ada.bench.deadline.contestants import OURS, Contestant
from ada.budget import read_budget
from llava.errors import OptionError


def test_contestant_fills_the_deadline_wherever_it_is() -> None:
    one = Contestant.parse('both={"latency_budget": "ttft={deadline_ms}ms", "vllm_xargs": {"x": ["{deadline_ms}", 3]}}')
    assert one.name == "both" and one.knows_deadline
    assert one.fields(250.0) == {"latency_budget": "ttft=250ms", "vllm_xargs": {"x": ["250", 3]}}


def test_contestant_without_fields_knows_no_deadline() -> None:
    assert Contestant.parse("plain") == Contestant("plain") and not Contestant("plain").knows_deadline


@pytest.mark.parametrize("text", ["", "={}", "a={", "a=[1]", "a=3"])
def test_contestant_that_cannot_be_read_is_a_user_error(text) -> None:
    with pytest.raises(OptionError, match="expected a name"):
        Contestant.parse(text)


def test_contestants_of_a_model_have_budgets_that_can_be_read() -> None:
    for contestant in OURS:
        fields = contestant.fields(125.0)
        assert read_budget(fields["latency_budget"])
        assert fields["reuse"] is False, "asked once a deadline or once, a prompt is read as often"
    assert len({contestant.name for contestant in OURS}) == len(OURS)
