"""The secret of controller and workers: where it is read from, and how it is checked."""

import argparse

import pytest

from llava.errors import OptionError
from llava.serve.middleware import registration_token
from llava.serve.middleware.registration_token import fits, header, token_of


def flags(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    registration_token.add_flag(parser)
    return parser.parse_args(given)


def test_token_without_flag_and_variable_is_none(monkeypatch) -> None:
    monkeypatch.delenv(registration_token.VARIABLE, raising=False)
    assert token_of(flags()) is None


def test_token_of_the_variable_is_used(monkeypatch) -> None:
    monkeypatch.setenv(registration_token.VARIABLE, "from-outside")
    assert token_of(flags()) == "from-outside"


def test_token_of_the_flag_comes_first(monkeypatch) -> None:
    monkeypatch.setenv(registration_token.VARIABLE, "from-outside")
    assert token_of(flags("--registration-token", "given")) == "given"


@pytest.mark.parametrize("token", ["zwei\nZeilen", "schlüssel", " padded "])
def test_token_that_a_header_cannot_carry_is_a_user_error(token: str) -> None:
    with pytest.raises(OptionError, match="printable ASCII"):
        token_of(flags("--registration-token", token))


def test_header_of_a_token_fits_it() -> None:
    assert fits("secret", header("secret")["Authorization"])
    assert header(None) == {}


@pytest.mark.parametrize(
    "authorization",
    [None, "", "secret", "Bearer secret2", "Basic secret", "é", "Bearer", "Bearersecret", "Bearer sec ret"],
)
def test_header_without_the_token_does_not_fit(authorization: str | None) -> None:
    assert not fits("secret", authorization)
    assert fits(None, authorization), "without a token everyone fits"


@pytest.mark.parametrize("authorization", ["bearer secret", "BEARER secret", "bEaReR  secret "])
def test_scheme_is_of_any_case(authorization: str) -> None:
    assert fits("secret", authorization)
