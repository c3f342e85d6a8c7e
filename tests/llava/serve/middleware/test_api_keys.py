"""API keys: where they are read from, and which keys are refused."""

import argparse

import pytest

from llava.errors import OptionError
from llava.serve.middleware import api_keys


@pytest.fixture
def key_file(tmp_path, monkeypatch):
    """``key_file(text)``: parsed flags that name a file with this text; no key in the environment."""
    monkeypatch.delenv(api_keys.VARIABLE, raising=False)

    def write(text: str) -> argparse.Namespace:
        path = tmp_path / "keys"
        path.write_text(text, encoding="utf-8")
        return flags("--api-key-file", str(path))

    return write


def flags(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    api_keys.add_flag(parser)
    return parser.parse_args(given)


def test_keys_of_a_file_with_a_byte_order_mark_are_read(tmp_path) -> None:
    path = tmp_path / "keys"
    path.write_text("one\ntwo\n", encoding="utf-8-sig")
    assert api_keys.keys_of(flags("--api-key-file", str(path))) == ("one", "two")


def test_keys_of_file_and_environment_are_joined(key_file, monkeypatch) -> None:
    args = key_file("# ours\none\n\ntwo # theirs\n")
    monkeypatch.setenv(api_keys.VARIABLE, "three, four,")
    assert api_keys.keys_of(args) == ("three", "four", "one", "two")


def test_keys_of_nothing_are_none(monkeypatch) -> None:
    monkeypatch.delenv(api_keys.VARIABLE, raising=False)
    assert api_keys.keys_of(flags()) == ()


def test_keys_file_without_a_key_is_a_user_error(key_file) -> None:
    with pytest.raises(OptionError, match=r"--api-key-file .* holds no key"):
        api_keys.keys_of(key_file("# none\n"))


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_keys_file_that_cannot_be_read_is_a_user_error(tmp_path, name: str) -> None:
    with pytest.raises(OptionError, match=r"--api-key-file .* cannot be read"):
        api_keys.keys_of(flags("--api-key-file", str(tmp_path / name)))


@pytest.mark.parametrize("key", ["schlüssel", "two words", "a\x07b"])
def test_key_that_a_header_cannot_carry_is_a_user_error(key_file, key: str) -> None:
    with pytest.raises(OptionError, match="printable ASCII"):
        api_keys.keys_of(key_file(f"{key}\n"))
