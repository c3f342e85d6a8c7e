"""What the overlay adds to the program that sends one message: the budget, and nothing that only a server can use."""

import argparse

import pytest

from ada.overlay import add_arguments
from llava.serve.test_message import parse_arguments, request_body


def test_test_message_has_the_budget_flag_alone() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser=parser, program="test_message")
    assert [action.option_strings for action in parser._actions] == [["--latency-budget"]]


@pytest.mark.parametrize("flag", ["--strict-latency-budget", "--no-auto-calibrate", "--planner=even"])
def test_test_message_refuses_the_flags_of_a_server(flag: str, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse_arguments([flag])
    assert "unrecognized arguments" in capsys.readouterr().err


@pytest.mark.parametrize("budget", ["0.5", "850ms", "-5ms"])
def test_test_message_sends_the_budget_as_it_was_given(budget: str) -> None:
    assert request_body(parse_arguments(["--latency-budget", budget]))["latency_budget"] == budget


def test_test_message_without_a_budget_sends_none() -> None:
    assert "latency_budget" not in request_body(parse_arguments([]))
