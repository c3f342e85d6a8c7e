"""What ``--help`` says is written down under ``help/``, word for word: a flag that changes shows in a review.

``UPDATE_HELP=1 python -m pytest tests/e2e/test_help.py`` writes the texts anew.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TEXTS = Path(__file__).parent / "help"
PROGRAMS = (
    "llava.serve.cli",
    "llava.eval.run_llava",
    "llava.eval.model_vqa",
    "llava.eval.model_vqa_loader",
    "llava.eval.model_vqa_science",
    "llava.eval.model_vqa_mmbench",
    "ada.bench",
    "ada.bench adherence",
    "ada.calibrate",
    "ada.cost",
    "ada.eval.sweep",
    "playground.easy_vqa.convert",
    "playground.shapes.generate",
    "playground.shapes.tower",
    "playground.shapes.language_base",
    "playground.shapes.tokenizer",
    "playground.shapes.samples",
)


def help_of(program: str, root: Path) -> str:
    """The text, whatever the width of the terminal and the Python that breaks its lines."""
    env = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    command = [sys.executable, "-m", *program.split(), "--help"]
    shown = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    return "\n".join(" ".join(part.split()) for part in shown.stdout.split("\n\n")) + "\n"


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_says_what_is_written_down(program: str, root: Path) -> None:
    text, path = help_of(program, root), TEXTS / f"{program}.txt"
    if os.environ.get("UPDATE_HELP"):
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text


def test_nothing_else_is_written_down() -> None:
    assert {path.stem for path in TEXTS.iterdir()} == set(PROGRAMS)
