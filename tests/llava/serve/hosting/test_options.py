"""The flags that every server has."""

import argparse

import pytest

from llava.errors import OptionError
from llava.flags import add_dataclass_flags, from_flags
from llava.serve.hosting.options import HostingOptions


def parse(*flags: str) -> HostingOptions:
    parser = argparse.ArgumentParser()
    add_dataclass_flags(parser, HostingOptions)
    return from_flags(HostingOptions, parser.parse_args(flags))


def test_flags_without_any_are_the_defaults() -> None:
    assert parse() == HostingOptions() and parse().extra_hosts == ()


def test_flags_set_every_option() -> None:
    flags = "--head-timeout 2 --max-connections 7 --drain-timeout 3 --allowed-hosts a.example,,b.example"
    options = parse(*flags.split())
    assert options == HostingOptions(2.0, 7, 3.0, "a.example,,b.example")
    assert options.extra_hosts == ("a.example", "b.example")


@pytest.mark.parametrize("flag", ["--head-timeout", "--drain-timeout", "--max-connections"])
@pytest.mark.parametrize("value", ["0", "-1"])
def test_flag_not_above_zero_is_a_user_error_that_names_it(flag: str, value: str) -> None:
    with pytest.raises(OptionError, match=f"{flag} is {value}"):
        parse(flag, value)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_timeout_not_finite_is_a_user_error(value: str) -> None:
    with pytest.raises(OptionError, match="--head-timeout"):
        parse("--head-timeout", value)
