"""scripts/bundled_model.sh: which bundled model a script opens, and what it says where one cannot be had."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SHOW = 'source scripts/bundled_model.sh; printf "%s\\n" "${ARGUMENTS[@]-}"'


@pytest.fixture
def environment(root, tmp_path) -> dict[str, str]:
    """A virtual environment in which nothing can be installed, and which has this project by scripts/venv.sh's mark."""
    variables = {**os.environ, "VIRTUAL_ENV": str(tmp_path), "PYTHONPATH": str(root), "PIP_NO_INDEX": "1"}
    variables["PATH"] = f"{Path(sys.executable).parent}:{variables['PATH']}"
    variables["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    variables["PIP_CONFIG_FILE"] = os.devnull
    mark(root, tmp_path, "")
    return variables


def mark(root: Path, venv: Path, extras: str) -> None:
    """Leave the mark of an environment with these extras."""
    stamp = f"cat pyproject.toml constraints.txt <(echo \"$PWD{extras}\") | cksum | cut -d' ' -f1"
    name = subprocess.run(["bash", "-c", stamp], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    (venv / f".ada-llava-{name}").touch()


def chosen(root: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", SHOW, "script", *arguments],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


TINY = ["--model-path", "ada/checkpoints/shapes-H"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model", "shapes"], TINY),
        (["--model=shapes", "--debug"], ["--debug", *TINY]),
        (["--model-path", "DIR", "--device", "cpu"], ["--model-path", "DIR", "--device", "cpu"]),
        (["--model-path=DIR"], ["--model-path=DIR"]),
    ],
)
def test_what_needs_no_language_model(root, environment, arguments, expected):
    ran = chosen(root, environment, *arguments)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == expected
    assert not ran.stderr


@pytest.mark.parametrize("arguments", [[], ["--model=smol"]], ids=["default", "named"])
def test_without_the_extra_the_tiny_model_answers(root, environment, arguments):
    ran = chosen(root, environment, *arguments)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == TINY
    assert ran.stderr.strip().endswith("pip cannot have what SmolLM2 needs (above); the tiny model answers")


def test_without_the_package_the_tiny_model_answers(root, environment, tmp_path):
    mark(root, tmp_path, "[smol]")
    ran = chosen(root, environment, "--model", "smol")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == TINY
    assert "pip could not download" in ran.stderr
    assert ran.stderr.strip().endswith("the language model of SmolLM2 cannot be had (above); the tiny model answers")


@pytest.mark.parametrize("arguments", [["--model", "large"], ["--model"], ["--model="]])
def test_an_unknown_model(root, environment, arguments):
    ran = chosen(root, environment, *arguments)
    assert ran.returncode == 2
    assert "expected smol or shapes" in ran.stderr


def test_environment_without_pip_asks_uv_or_says_how_to_have_pip(root, tmp_path):
    """uv's environments have no pip."""
    (tmp_path / "python").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "uv").write_text('#!/bin/sh\necho "$@"\n')
    for name in ("python", "uv"):
        (tmp_path / name).chmod(0o755)
    variables = {"VIRTUAL_ENV": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin"}
    sourced = ["bash", "-euo", "pipefail", "-c", "source scripts/venv.sh"]
    with_uv = subprocess.run(sourced, cwd=root, env=variables, capture_output=True, text=True)
    assert with_uv.returncode == 0 and with_uv.stdout.split()[:2] == ["pip", "install"], with_uv.stderr
    (tmp_path / "uv").unlink()
    next(tmp_path.glob(".ada-llava-*")).unlink()
    without = subprocess.run(sourced, cwd=root, env=variables, capture_output=True, text=True)
    assert without.returncode != 0 and "has no pip; python -m ensurepip" in without.stderr
