"""A sweep as a real process, killed twice and started again: nothing is lost, nothing is there twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.fixture
def command(root, quiz, checkpoint_h):
    """``command(out)``: what is run, and the keywords it is run with."""

    def make(out: Path):
        words = [sys.executable, "-m", "ada.eval.sweep", "--model-path", f"tiny={checkpoint_h}", "--out", str(out)]
        words += ["--question-file", str(quiz / "questions.jsonl"), "--image-folder", str(quiz / "images")]
        words += ["--budgets", "1,0.7", "--planners", "learned,random", "--batch-size", "1", "--max-new-tokens", "3"]
        words += ["--timed-questions", "6", "--device", "cpu"]
        return words, {"cwd": root, "env": {**os.environ, "PYTHONPATH": str(root)}, "stderr": subprocess.PIPE}

    return make


def lines(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.rglob("*.jsonl*"))


def killed_behind(command, folder: Path, count: int) -> None:
    """Run the command, and kill it as soon as ``folder`` holds more than ``count`` lines."""
    words, how = command
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, **how) as running:
        while running.poll() is None and lines(folder) <= count:
            time.sleep(0.005)
        os.kill(running.pid, signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL, "it had finished before it could be killed"


def test_killed_and_started_again(command, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "killed"
    for count in (7, 20):
        killed_behind(command(out), out / "answers", count)
        assert 0 < lines(out / "answers") < 36 and not (out / "sweep.json").exists()
    killed_behind(command(out), out / "times", 3)
    assert lines(out / "answers") == 36 and lines(out / "times") < 18
    for folder in (out, whole):
        words, how = command(folder)
        ran = subprocess.run(words, stdout=subprocess.PIPE, text=True, **how)
        assert ran.returncode == 0, ran.stderr
    names = ("any-1", "learned-0.7", "random-0.7")
    for name in names:
        one, other = (folder / "answers" / "tiny" / "questions" / f"{name}.jsonl" for folder in (out, whole))
        assert one.read_bytes() == other.read_bytes()
        assert [json.loads(line)["number"] for line in one.read_text().splitlines()] == list(range(12))
        timed = [json.loads(line)["number"] for line in (out / "times" / "tiny" / f"{name}.jsonl").open()]
        assert len(timed) == len(set(timed)) == 6
    assert (out / "marks.json").read_bytes() == (whole / "marks.json").read_bytes()
    assert (out / "plans.json").read_bytes() == (whole / "plans.json").read_bytes()
    assert not [path for path in out.rglob("*") if path.suffix in (".part", ".new")]
