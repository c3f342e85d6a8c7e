"""Every answer's mark agrees with the benchmark's own scorer; questions and truths that do not match are refused."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path

import pytest
from fixtures.odd_values import VALUES, paths_of, with_value

from ada.eval.questions.benchmarks import BENCHMARKS, read_benchmark
from llava.errors import LlavaError
from llava.eval import eval_pope
from llava.files.jsonl import lines_of
from playground.shapes.benchmarks import write_benchmarks

ELSEWHERE = {"mm-vet", "llava-bench-in-the-wild", "lmms", "qbench"}  # scored by a judge, and by lmms-eval


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Twelve questions of each benchmark."""
    folder = tmp_path_factory.mktemp("world")
    write_benchmarks(folder / "eval", 0, 12, [])
    return folder / "eval"


def test_benchmarks_are_all_that_the_world_has(world):
    assert set(BENCHMARKS) == {path.name for path in world.iterdir()} - ELSEWHERE
    assert [read_benchmark(name, world).name for name in BENCHMARKS] == list(BENCHMARKS)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_marks_add_up_to_the_scorers_figure(name, world):
    """All answers right, then half of them."""
    questions = read_benchmark(name, world)
    assert len(questions.items) >= 6 and set(questions.kinds) == {item.kind for item in questions.items}
    rng = random.Random(0)
    for rightly in (1.0, 0.5):
        texts = [item.truth if rng.random() < rightly else "zebra" for item in questions.items]
        right = [item.is_right(text) for item, text in zip(questions.items, texts, strict=True)]
        if rightly == 1.0:
            assert all(right)
        else:
            assert 0 < sum(right) < len(right)
        figures = questions.score([item.record(text) for item, text in zip(questions.items, texts, strict=True)])
        if name == "MME":
            maximum = 200 * len(questions.kinds)
            assert sum(int(title.rpartition(" ")[2]) for title in figures) == maximum
            assert (sum(figures.values()) == maximum) is (rightly == 1.0)
        elif name == "pope":
            assert (figures["F1, %"] == 100) is (rightly == 1.0)
        else:
            assert figures == {"accuracy, %": pytest.approx(100 * sum(right) / len(right))}


def test_pope_is_scored_as_by_its_program(world, tmp_path):
    questions = read_benchmark("pope", world)
    records = [item.record("yes" if number % 3 else "no") for number, item in enumerate(questions.items)]
    (tmp_path / "answers.jsonl").write_text(lines_of(records))
    folder = world / "pope"
    scores = eval_pope.score(folder / "coco", folder / "llava_pope_test.jsonl", tmp_path / "answers.jsonl")
    f1 = sum(own["f1"] for own in scores.values()) / len(scores)
    assert questions.score(records) == {"F1, %": pytest.approx(100 * f1)}
    right = sum(item.is_right(record["text"]) for item, record in zip(questions.items, records, strict=True))
    assert right == sum(own["TP"] + own["TN"] for own in scores.values())


def test_pope_without_a_right_yes_has_an_undefined_score(world):
    questions = read_benchmark("pope", world)
    assert questions.score([item.record("no") for item in questions.items]) == {"F1, %": None}


@pytest.mark.parametrize(
    ("file", "spoil"),
    [
        ("pope/coco/coco_pope_random.json", lambda text: text.split("\n", 1)[1]),
        ("vqav2/v2_mscoco_test-dev2015_annotations.json", lambda text: json.dumps({"annotations": []})),
        ("textvqa/TextVQA_0.5.1_val.json", lambda text: text.replace('"question"', '"asked"')),
        ("gqa/data/testdev_balanced_questions.json", lambda text: "{}"),
        ("scienceqa/problems.json", lambda text: "{}"),
    ],
)
def test_read_benchmark_refuses_truths_that_do_not_match(file, spoil, tmp_path):
    write_benchmarks(tmp_path, 0, 6, [])
    path = tmp_path / file
    path.write_text(spoil(path.read_text()))
    name = file.partition("/")[0]
    with pytest.raises(
        LlavaError, match=rf"/{name}.*(questions and truths do not match|expected one for one|lacks 6 problems)"
    ):
        read_benchmark(name, tmp_path)


TRUTHS = {
    "pope": "coco/coco_pope_random.json",
    "textvqa": "TextVQA_0.5.1_val.json",
    "vqav2": "v2_mscoco_test-dev2015_annotations.json",
    "vizwiz": "test.json",
    "gqa": "data/testdev_balanced_questions.json",
    "scienceqa": "problems.json",
    "seed_bench": "SEED-Bench.json",
}


@pytest.mark.parametrize("name", TRUTHS)
def test_odd_values_in_a_benchmarks_truths_are_user_errors_or_are_marked(name, tmp_path):
    write_benchmarks(tmp_path, 0, 6, [])
    path = tmp_path / name / TRUTHS[name]
    text = path.read_text()
    lines = name == "pope"
    good = [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)
    shapes = {
        tuple("#" if str(key).isdigit() else key for key in at): at for at in paths_of("", good) if at or not lines
    }
    for at in shapes.values():  # one of each kind of path
        for value in VALUES:
            odd = with_value(good, at, value)
            path.write_text(lines_of(odd) if lines else json.dumps(odd))
            with contextlib.suppress(LlavaError):
                questions = read_benchmark(name, tmp_path)
                assert questions.score([item.record("yes") for item in questions.items])
                assert all(item.is_right("yes") in (True, False) for item in questions.items)
