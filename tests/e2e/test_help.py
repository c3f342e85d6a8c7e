"""What ``--help`` of every program says is kept under ``help/``, one option a line: a changed flag shows in a diff.

``python scripts/help_texts.py`` writes the texts anew.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import help_texts
import pytest


@pytest.mark.parametrize("program", help_texts.programs())
def test_help_is_as_recorded(program: str) -> None:
    recorded = help_texts.text_path(program).read_text(encoding="utf-8")
    assert help_texts.help_text(program) == recorded, "after a change of flags run: python scripts/help_texts.py"


def test_every_recorded_text_has_a_program() -> None:
    expected = {help_texts.text_path(program) for program in help_texts.programs()}
    assert set(help_texts.TEXTS.iterdir()) == expected


@pytest.mark.parametrize("program", help_texts.programs())
def test_every_option_has_help(program: str) -> None:
    recorded = help_texts.text_path(program).read_text(encoding="utf-8")
    silent = [line for line in recorded.splitlines() if line.startswith("  ") and ": " not in line]
    assert not silent, silent


@pytest.mark.integration
@pytest.mark.parametrize("program", ["llava.serve.cli", "ada.cost"])
def test_program_prints_the_recorded_options(program: str, root: Path) -> None:
    env = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    command = [sys.executable, "-m", program, "--help"]
    shown = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=True).stdout
    recorded = help_texts.known_flags(help_texts.text_path(program).read_text(encoding="utf-8"))
    assert recorded and all(flag in shown for flag in recorded)


def test_known_flags_are_those_of_the_subcommand() -> None:
    main = "usage: python -m a\noptions:\n  --one X [3]: first\n  -b, --both: two\n"
    text = f"{main}\nusage: python -m a sub\noptions:\n  --two: second\n"
    assert help_texts.known_flags(text) == {"--one", "-b", "--both"}
    assert help_texts.known_flags(text, "sub") == {"--two"}
    assert help_texts.known_flags(text, "other") == {"--one", "-b", "--both"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"type": int, "default": 0, "help": "how many"}, "--x X [0]: how many"),
        ({"default": None, "help": "a name"}, "--x X: a name"),
        ({"action": "store_true", "help": "do\n   so"}, "--x: do so"),
        ({"nargs": "*", "default": [1, 2], "help": "several"}, "--x [X ...] [1 2]: several"),
        ({"choices": ["a", "b"], "default": "a", "help": "50%% or %(default)s"}, "--x {a,b} [a]: 50% or a"),
    ],
)
def test_option_is_one_line(options: dict, expected: str) -> None:
    parser = argparse.ArgumentParser()
    action = parser.add_argument("--x", **options)
    assert help_texts._option(action, parser) == expected
