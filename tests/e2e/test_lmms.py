"""The released lmms-eval, in its own process and environment, gives the runner's answers to the same questions."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from ada.eval.questions.exact_match import is_right
from llava.eval import model_vqa_loader
from llava.files.jsonl import lines_of, read_records
from playground.shapes.benchmark_scenes import Bench
from playground.shapes.benchmarks_lmms import QUESTIONS, lmms

COUNT = 40
STAMP = "cat pyproject.toml constraints.txt <(echo \"$PWD[eval,lmms]\") | cksum | cut -d' ' -f1"  # as scripts/venv.sh
STAR = "Is there a star in the picture?\nAnswer the question using a single word or phrase."
CHOICE = f"""\
task: shapes_star
dataset_path: json
dataset_kwargs:
  data_files:
    test: questions.jsonl
test_split: test
output_type: multiple_choice
doc_to_visual: !function playground.shapes.benchmarks_lmms.images
doc_to_text: {json.dumps(STAR)}
doc_to_choice: ["yes", "no", "red"]
doc_to_target: "no"
metric_list:
- metric: acc
  aggregation: mean
  higher_is_better: true
"""


@pytest.fixture(scope="module")
def environment(root) -> Path:
    """The virtual environment that ``lmms.sh`` made for this checkout."""
    folder = Path(os.environ.get("LMMS_VENV", root / ".venv-lmms"))
    digest = subprocess.run(["bash", "-c", STAMP], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    if not (folder / f".ada-llava-{digest}").exists():
        pytest.skip(f"no lmms-eval of this checkout in {folder} (LMMS_VENV); scripts/v1_5/eval/lmms.sh installs it")
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """The task, and a second one that compares answers; for the runner, the second one's question."""
    folder = tmp_path_factory.mktemp("shapes")
    lmms(Bench("lmms", folder / "lmms", 0, COUNT, frozenset()))
    (folder / "lmms" / "shapes_star.yaml").write_text(CHOICE)
    rows = read_records(folder / "lmms" / QUESTIONS, "")
    (folder / "lmms" / "star.jsonl").write_text(lines_of([{**row, "text": STAR} for row in rows]))
    return folder


@pytest.fixture
def script(root, environment, world):
    """``script(*flags, **variables)``: the finished process of ``lmms.sh`` on the bundled model."""

    def run(*flags: str, **variables: object) -> subprocess.CompletedProcess:
        own = {"DATA": world, "CKPT": "ada/checkpoints/shapes-H", "LMMS_VENV": environment, "PYTHONPATH": root}
        own |= {"HF_HUB_OFFLINE": 1, "HF_DATASETS_OFFLINE": 1, "HF_HOME": world / "cache", "CUDA_VISIBLE_DEVICES": ""}
        settings = {**os.environ, **{name: str(value) for name, value in (own | variables).items()}}
        return subprocess.run(
            ["bash", str(root / "scripts/v1_5/eval/lmms.sh"), *flags], env=settings, capture_output=True, text=True
        )

    return run


def results_of(world: Path, name: str) -> SimpleNamespace:
    folder = world / "lmms" / "answers" / name
    lines = (folder / "samples_shapes_questions.jsonl").read_text().splitlines()
    samples = sorted(map(json.loads, lines), key=lambda sample: sample["doc_id"])
    return SimpleNamespace(**json.loads((folder / "results.json").read_text()), samples=samples)


@pytest.fixture
def runner(root, world, tmp_path):
    """``runner(file, budget)``: the records of ``model_vqa_loader``."""

    def run(file: str, budget: str) -> list[dict]:
        out = tmp_path / f"{budget}-{file}"
        flags = ["--model-path", root / "ada/checkpoints/shapes-H", "--question-file", world / "lmms" / file]
        flags += ["--image-folder", world / "lmms", "--answers-file", out, "--temperature", "0", "--device", "cpu"]
        flags += ["--conv-mode", "vicuna_v1", "--latency-budget", budget]
        assert model_vqa_loader.main([str(flag) for flag in flags]) == 0
        return read_records(out, "")

    return run


@pytest.mark.slow
def test_lmms_eval_scores_and_answers_are_the_runners(script, runner, world) -> None:
    questions, prefill = read_records(world / "lmms" / QUESTIONS, ""), {}
    for budget in ("1.0", "0.6"):
        ran = script(BUDGET=budget, NAME=budget, TASKS="shapes_questions,shapes_star")
        assert ran.returncode == 0, ran.stderr + ran.stdout
        found, records = results_of(world, budget), runner(QUESTIONS, budget)
        assert [sample["filtered_resps"] for sample in found.samples] == [record["text"] for record in records]
        right = [is_right(r["text"], q["answer"]) for r, q in zip(records, questions, strict=True)]
        assert found.results["shapes_questions"]["accuracy,none"] == sum(right) / COUNT > 0.5
        for sample, record in zip(found.samples, records, strict=True):
            written = sample["token_counts"][0]
            assert written["prefill_gflops"] == record["metadata"]["prefill_gflops"]
            assert written["output_tokens"] == record["metadata"]["new_tokens"]
            assert written["time_to_first_token_ms"] > 0 and written["granted"] <= float(budget)
        prefill[budget] = sum(record["metadata"]["prefill_gflops"] for record in records) / COUNT
        assert found.throughput["avg_prefill_gflops"] == pytest.approx(prefill[budget])
        assert found.throughput["avg_time_to_first_token_ms"] > 0 and found.throughput["avg_ms_per_token"] > 0
        says = [record["text"] for record in runner("star.jsonl", budget)]
        assert set(says) == {"yes", "no"}  # so what is likelier of the two is what the model says
        assert found.results["shapes_star"]["acc,none"] == says.count("no") / COUNT
    assert prefill["0.6"] < 0.7 * prefill["1.0"]


@pytest.mark.slow
def test_lmms_script_fails_where_lmms_eval_left_no_results(script, world) -> None:
    """lmms-eval itself exits with code 0."""
    ran = script(BUDGET="2", NAME="bad")
    assert ran.returncode == 1 and "lmms-eval left no results for bad" in ran.stderr
    assert "--latency-budget is " in ran.stdout + ran.stderr
    assert not (world / "lmms" / "answers" / "bad").exists()


@pytest.mark.slow
def test_lmms_script_names_what_writes_a_missing_task(script, tmp_path) -> None:
    ran = script(DATA=tmp_path)
    assert ran.returncode == 2 and "playground.shapes.generate --benchmarks N writes it" in ran.stderr
