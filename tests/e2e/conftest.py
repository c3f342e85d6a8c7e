"""The programs run in this process or in their own."""

import os
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest

from llava.eval import run_llava
from llava.serve import cli

Run = Callable[..., SimpleNamespace]


def exit_code(main: Callable, flags: tuple) -> int:
    """What the program ends with; argparse leaves by SystemExit."""
    try:
        return main([str(flag) for flag in flags])
    except SystemExit as end:
        return end.code


@pytest.fixture
def run_cli(monkeypatch, capsys) -> Run:
    """``run_cli(*flags, typed=[...])`` -> code, out, err of the chat in this process, fed by a pipe."""

    def run(*flags: object, typed: list[str]) -> SimpleNamespace:
        monkeypatch.setattr(sys, "stdin", StringIO("".join(f"{line}\n" for line in typed)))
        code = exit_code(cli.main, flags)
        said = capsys.readouterr()
        return SimpleNamespace(code=code, out=said.out, err=said.err)

    return run


@pytest.fixture
def run_once(capsys) -> Run:
    """``run_once(*flags)`` -> code, out, err of ``run_llava`` in this process."""

    def run(*flags: object) -> SimpleNamespace:
        code = exit_code(run_llava.main, flags)
        said = capsys.readouterr()
        return SimpleNamespace(code=code, out=said.out, err=said.err)

    return run


@pytest.fixture(scope="session")
def program(root: Path) -> Run:
    """``program("llava.serve.cli", *flags)``: the real program in its own process, with nothing typed."""

    def run(module: str, *flags: object, typed: str = "") -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", module, *map(str, flags)],
            input=typed,
            capture_output=True,
            text=True,
            cwd=root,
            env={**os.environ, "COLUMNS": "100", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
        )

    return run
