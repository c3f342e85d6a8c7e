"""A sweep as a real process, killed and started again: nothing is lost, and nothing is there twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures.marks import slow_except

from ada.eval.sweep import parse_arguments, sweep

# Kills itself when answer files in the folder argv[1] have got argv[2] new lines, in the middle of the last one.
KILLED = """
import os, signal, sys
from ada.eval.sweep import main
from llava.files.jsonl import RecordFile

folder, left = sys.argv[1], int(sys.argv[2])
append = RecordFile.append

def append_until_killed(file, records):
    global left
    append(file, records)
    left -= len(records) if folder in file.part.parts else 0
    if left <= 0:
        os.truncate(file.part, file.part.stat().st_size - 5)
        os.kill(os.getpid(), signal.SIGKILL)

RecordFile.append = append_until_killed
main(sys.argv[3:])
"""
RUNS = ("any-1", "learned-0.7", "random-0.7")


@pytest.fixture
def words(quiz, checkpoint_h):
    """``words(out)``: the arguments of a sweep into ``out``."""

    def make(out: Path) -> list[str]:
        flags = ["--model-path", f"tiny={checkpoint_h}", "--out", str(out), "--device", "cpu"]
        flags += ["--question-file", str(quiz / "questions.jsonl"), "--image-folder", str(quiz / "images")]
        flags += ["--budgets", "1,0.7", "--planners", "learned,random", "--batch-size", "1", "--max-new-tokens", "3"]
        return [*flags, "--timed-questions", "6"]

    return make


@pytest.fixture
def start(root, words):
    """``start(out, *program)``: the finished process of a sweep into ``out``."""

    def run(out: Path, *program: str) -> subprocess.CompletedProcess:
        command = [sys.executable, *program, *words(out)]
        settings = {**os.environ, "PYTHONPATH": str(root)}
        return subprocess.run(command, cwd=root, env=settings, capture_output=True, text=True)

    return run


def lines(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.rglob("*.jsonl*"))


ONCE = [("answers", 8, 7)]
THRICE = [*ONCE, ("answers", 14, 20), ("times", 4, 3)]


@pytest.mark.parametrize("kills", slow_except([ONCE, THRICE], ONCE), ids=["once", "thrice"])
def test_sweep_that_was_killed_leaves_what_an_undisturbed_one_does(start, words, tmp_path, kills):
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "killed"
    for folder, new, left in kills:
        assert start(out, "-c", KILLED, folder, str(new)).returncode == -signal.SIGKILL
        assert lines(out / folder) == left and not (out / "sweep.json").exists()
    ran = start(out, "-m", "ada.eval.sweep")
    assert ran.returncode == 0, ran.stderr
    sweep(parse_arguments(words(undisturbed)))
    for name in RUNS:
        one, other = (
            folder / "answers" / "tiny" / "questions" / f"{name}.jsonl" for folder in (out, undisturbed)
        )  # fmt: skip
        assert one.read_bytes() == other.read_bytes()
        assert [json.loads(line)["number"] for line in one.read_text().splitlines()] == list(range(12))
        timed = [json.loads(line)["number"] for line in (out / "times" / "tiny" / f"{name}.jsonl").open()]
        assert len(timed) == len(set(timed)) == 6
    for name in ("marks.json", "plans.json"):
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes()
    assert not [path for path in out.rglob("*") if path.suffix in (".part", ".new")]
