"""Limits of a request, from flags."""

import argparse

import pytest

from llava.errors import OptionError
from llava.flags import add_dataclass_flags, from_flags
from llava.serve.worker.request_limits import RequestLimits


def limits_of(*flags: str) -> RequestLimits:
    parser = argparse.ArgumentParser()
    add_dataclass_flags(parser, RequestLimits)
    return from_flags(RequestLimits, parser.parse_args(flags))


def test_request_limits_without_flags_are_the_defaults() -> None:
    assert limits_of() == RequestLimits()


def test_request_limits_flags_are_read_in_their_units() -> None:
    flags = (
        "--max-image-mib",
        "0.5",
        "--queue-timeout",
        "1.5",
        "--generation-timeout",
        "2",
        "--max-prompt-tokens",
        "7",
    )
    expected = RequestLimits(
        max_image_bytes=512 * 1024, queue_timeout_s=1.5, generation_timeout_s=2.0, max_prompt_tokens=7
    )
    assert limits_of(*flags) == expected


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--max-images", "-1"),
        ("--max-image-mib", "-1"),
        ("--max-image-pixels", "-5"),
        ("--max-prompt-characters", "0"),
        ("--max-prompt-tokens", "0"),
        ("--max-output-tokens", "0"),
        ("--queue-timeout", "0"),
        ("--generation-timeout", "nan"),
    ],
)
def test_request_limits_bad_value_names_the_flag(flag, value) -> None:
    with pytest.raises(OptionError, match=f"^{flag} is "):
        limits_of(flag, value)
