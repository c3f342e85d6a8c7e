"""What the overlay adds to the program that sends one message: what a request can ask, and no flag of a server."""

import argparse

import pytest

from ada.overlay import add_arguments
from llava.serve.test_message import parse_arguments, request_body


def test_test_message_has_the_flags_of_requests_alone() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser=parser, program="test_message")
    flags = [action.option_strings for action in parser._actions]
    assert flags == [["--latency-budget"], ["--image-tokens"], ["--token-selector"]]


@pytest.mark.parametrize("flag", ["--strict-latency-budget", "--no-auto-calibrate", "--planner=even"])
def test_test_message_refuses_the_flags_of_a_server(flag: str, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse_arguments([flag])
    assert "unrecognized arguments" in capsys.readouterr().err


@pytest.mark.parametrize("budget", ["0.5", "850ms", "-5ms"])
def test_test_message_sends_the_budget_as_it_was_given(budget: str) -> None:
    assert request_body(parse_arguments(["--latency-budget", budget]))["latency_budget"] == budget


@pytest.mark.parametrize("amount", ["25%", "144", "auto", "-3", "50%/25%"])
def test_test_message_sends_image_tokens_as_they_were_given(amount: str) -> None:
    body = request_body(parse_arguments(["--image-tokens", amount, "--token-selector", "salient/fastv"]))
    assert (body["image_tokens"], body["token_selector"]) == (amount, "salient/fastv")


def test_test_message_without_flags_sends_no_field() -> None:
    assert not {"latency_budget", "image_tokens", "token_selector"} & set(request_body(parse_arguments([])))
