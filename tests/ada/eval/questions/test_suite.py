"""A suite is generated where it is missing, and read where it is there."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ada.eval.questions import suite
from ada.eval.questions.benchmarks import BENCHMARKS
from ada.eval.questions.suite import read_suite
from llava.errors import LlavaError


@pytest.fixture
def small_world(monkeypatch):
    """The suite is generated from a world of few training scenes, so that this takes seconds."""
    monkeypatch.setattr(suite, "WORLD", ("--seed", "3", "--scenes", "12"))


def test_read_suite_generates_what_is_missing(small_world, tmp_path, capsys, root, monkeypatch):
    monkeypatch.chdir(root)
    folder = tmp_path / "data"
    sets = read_suite("shapes", folder, 12)
    assert f"notice: {folder} is not there yet" in capsys.readouterr().err
    assert [questions.name for questions in sets] == ["test", *BENCHMARKS]
    assert [len(questions.items) for questions in sets[:2]] == [12, 12]
    assert sets[0].items[0].question.open_image().size == (96, 96)
    assert not list(tmp_path.glob("*.new")) and not (folder / "conversations.json").exists()
    marks = {questions.name: questions.fingerprint for questions in sets}
    again = read_suite("shapes", folder)
    assert {questions.name: questions.fingerprint for questions in again} == marks
    assert capsys.readouterr().err == ""
    command = [sys.executable, "-m", "playground.shapes.generate", "--out", str(tmp_path / "complete"), *suite.WORLD]
    subprocess.run([*command, "--test-questions", "12"], check=True, capture_output=True, cwd=root)
    assert (tmp_path / "complete" / "test.jsonl").read_bytes() == (folder / "test.jsonl").read_bytes()
    with_benchmarks = read_suite("shapes", tmp_path / "complete", 12)  # a world without benchmarks gets them
    assert {questions.name: questions.fingerprint for questions in with_benchmarks} == marks


def test_read_suite_refuses_unknown_suites_and_other_folders(tmp_path, small_world, root, monkeypatch):
    monkeypatch.chdir(root)
    with pytest.raises(LlavaError, match="--suite is 'cubes'; expected shapes"):
        read_suite("cubes", tmp_path / "data")
    with pytest.raises(LlavaError, match="--suite-size is 3; expected 10 or more"):
        read_suite("shapes", tmp_path / "data", 3)
    with pytest.raises(LlavaError, match=r"holds no test.jsonl"):
        read_suite("shapes", tmp_path)
    (tmp_path / "test.jsonl").write_text("")
    (tmp_path / "eval").mkdir()
    with pytest.raises(LlavaError, match=r"test.jsonl is empty"):
        read_suite("shapes", tmp_path)
    assert not (tmp_path / "data").exists()
