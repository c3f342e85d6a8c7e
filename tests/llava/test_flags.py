"""Command-line flags from dataclass fields."""

import argparse
from dataclasses import dataclass

import pytest

from llava.flags import add_dataclass_flags, flag, from_flags


@dataclass(frozen=True)
class Settings:
    """Settings of a test."""

    max_items: int = flag(3, "maximum number of items")
    timeout_s: float | None = flag(None, "time limit, in seconds", name="--time-limit")
    size_bytes: int = flag(2048, "size, in KiB", name="--size-kib", unit=1024)
    fast: bool = flag(False, "be fast")
    internal: str = "not a flag"


def parse(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_dataclass_flags(parser, Settings)
    return parser.parse_args(flags)


def test_from_flags_without_flags_are_the_defaults() -> None:
    assert from_flags(Settings, parse()) == Settings()


def test_from_flags_reads_types_names_and_units() -> None:
    args = parse("--max-items", "5", "--time-limit", "1.5", "--size-kib", "0.5", "--fast")
    assert from_flags(Settings, args) == Settings(5, 1.5, 512, True)


def test_from_flags_of_options_by_flag_name_keeps_other_defaults() -> None:
    assert from_flags(Settings, {"time_limit": 2.0, "unrelated": 1}) == Settings(timeout_s=2.0)


def test_add_dataclass_flags_names_the_group_after_the_class(capsys) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    shown = capsys.readouterr().out
    assert "Settings of a test:" in shown and "maximum number of items" in shown and "internal" not in shown
