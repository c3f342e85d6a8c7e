"""A sweep on a Ray cluster leaves the files of one without, also where workers are lost on the way."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import psutil
import pytest

from ada.eval.answering.answer_file import AnswerFile
from ada.eval.sweep import main, parse_arguments, sweep
from llava.errors import LlavaError

ray = pytest.importorskip("ray")
from ada.eval.answering import ray_answers  # noqa: E402 - it needs ray

pytestmark = pytest.mark.integration  # they run sweeps


@pytest.fixture(scope="module")
def cluster():
    """A cluster of this process, with room for two batches at a time."""
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def arguments(quiz, checkpoint_h, tmp_path):
    """``arguments(out, *flags)``: of a sweep of 24 answers, one in a batch."""

    def make(out: str, *flags: str) -> list[str]:
        words = ["--model-path", f"tiny={checkpoint_h}", "--out", str(tmp_path / out), "--device", "cpu"]
        words += ["--question-file", str(quiz / "questions.jsonl"), "--image-folder", str(quiz / "images")]
        words += ["--budgets", "1,0.7", "--planners", "learned,random", "--batch-size", "1", "--max-new-tokens", "3"]
        return [*words, "--timed-questions", "0", *flags]

    return make


def contents(folder: Path) -> dict[str, bytes]:
    """The files that hold what was answered, and what follows from it."""
    files = [path for path in folder.rglob("*") if path.suffix in (".json", ".jsonl", ".csv", ".part")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def kill_workers() -> int:
    """Kill the processes that answer, or have done so; return how many there were."""
    found = 0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            if "".join(process.cmdline()[:1]).startswith(("ray::_answer", "ray::IDLE")):
                process.kill()
                found += 1
    return found


def test_sweep_on_a_cluster_whose_workers_are_killed_leaves_the_same_files(arguments, cluster, tmp_path, monkeypatch):
    sweep(parse_arguments(arguments("alone")))
    killed, append = [], AnswerFile.append

    def kill_once(file, answers) -> None:
        append(file, answers)
        if len(killed) < 3:
            killed.append(kill_workers())

    monkeypatch.setattr(AnswerFile, "append", kill_once)
    sweep(parse_arguments(arguments("spread", "--ray", "auto")))
    assert sum(killed) >= 1, "a worker was lost before all was answered"
    alone, spread = contents(tmp_path / "alone"), contents(tmp_path / "spread")
    assert spread.keys() == alone.keys()
    assert not [name for name in alone if name != "sweep.json" and spread[name] != alone[name]]


def test_sweep_that_was_stopped_goes_on_where_it_was(arguments, cluster, monkeypatch):
    appended, append = [], AnswerFile.append

    def stop_after_five(file, answers) -> None:
        append(file, answers)
        appended.append((file.path.name, [answer.number for answer in answers]))
        if len(appended) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(AnswerFile, "append", stop_after_five)
    with pytest.raises(KeyboardInterrupt):
        sweep(parse_arguments(arguments("stopped", "--ray", "auto")))
    sweep(parse_arguments(arguments("stopped", "--ray", "auto")))
    assert len(appended) == len({(name, *numbers) for name, numbers in appended}), "no answer was given twice"


def test_errors_of_a_worker_are_the_sweeps(arguments, cluster, monkeypatch, capsys):
    monkeypatch.setattr("ada.eval.answering.model_specs.ModelSpec.fingerprint", lambda spec: "another")
    assert main(arguments("changed", "--ray", "auto")) == 2
    assert "is not the checkpoint that the sweep began with" in capsys.readouterr().err


def test_address_without_a_cluster_is_refused(arguments, monkeypatch, capsys):
    def init(*args, **keywords) -> None:
        raise ConnectionError("no running instance")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    assert main(arguments("nowhere", "--ray", "auto")) == 2
    assert "--ray auto: no running instance; start one with `ray start --head`" in capsys.readouterr().err


def test_batch_whose_workers_are_always_lost_ends_the_sweep_with_a_message(monkeypatch) -> None:
    def lost(reference) -> None:
        raise ray.exceptions.WorkerCrashedError

    monkeypatch.setattr(ray, "get", lost)
    with pytest.raises(LlavaError, match=r"lost 6 times .WorkerCrashedError.*the same command goes on"):
        ray_answers._result(None)


def test_batch_is_late_after_three_times_the_median_and_asked_once_more() -> None:
    def running(*started: tuple[int, float]) -> dict:
        batches = [(type("Asked", (), {"batch": type("Batch", (), {"number": n})})(), s) for n, s in started]
        return dict(enumerate(batches))

    now, ended = time.monotonic(), {0: 1.0, 1: 2.0, 2: 30.0}
    late = ray_answers._late(running((3, now - 5), (4, now - 7)), ended)
    assert late is not None and late.batch.number == 4
    assert ray_answers._late(running((3, now - 5)), ended) is None
    assert ray_answers._late(running((4, now - 7), (4, now - 1)), ended) is None, "it runs twice already"
    assert ray_answers._late(running((4, now - 7)), {}) is None
