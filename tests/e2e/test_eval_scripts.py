"""The benchmark scripts, run for real on the shapes world's benchmarks with a tiny checkpoint."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from fixtures.marks import slow_except

from playground.shapes.benchmarks import BENCHMARKS, write_benchmarks

SAYS = {
    "pope": r"Category: random, # samples: 2\nTP\tFP\tTN\tFN\t\n\d\t\d\t\d\t\d\nAccuracy: \d\.\d",
    "mme": r"total score: \d+\.\d\d",
    "textvqa": r"Samples: 6\nAccuracy: \d+\.\d\d%",
    "sqa": r"Total: 6, Correct: \d, Accuracy: \d+\.\d\d%, IMG-Accuracy: \d+\.\d\d%",
    "mmbench": r'"questions": 6, "accuracy": \d',
    "mmbench_cn": r'"questions": 6, "accuracy": \d',
    "seed": r"Total accuracy: \d+\.\d\d%\nimage: ",
    "vqav2": r'"questions": 3, "accuracy": \d',
    "gqa": r'"questions": 6, "accuracy": \d',
    "vizwiz": r'"questions": 6, "accuracy": \d',
    "qbench": r"Answers to submit: .*llvisionqa_dev_answers\.jsonl",
    "qbench_zh": r"Answers to submit: .*llvisionqa_zh_dev_answers\.jsonl",
    "mmvet": "Not judged: set OPENAI_API_KEY",
    "llavabench": "Not judged: set OPENAI_API_KEY",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Six questions of each benchmark."""
    folder = tmp_path_factory.mktemp("shapes")
    write_benchmarks(folder / "eval", 0, 6, [])
    return folder / "eval"


@pytest.fixture
def script(run_script, world, adaptive_checkpoint):
    """``script(name, *flags, **variables)``: the finished process, on a tiny checkpoint unless ``CKPT`` says else."""

    def run(name: str, *flags: str, **variables: object) -> subprocess.CompletedProcess:
        settings = {"DATA": world, "CKPT": adaptive_checkpoint, **variables}
        return run_script(f"scripts/v1_5/eval/{name}.sh", "--max_new_tokens", "3", *flags, **settings)

    return run


def timeless(path: Path) -> list[dict]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        for name in ("time_to_first_token_ms", "tokens_per_second"):
            del row["metadata"][name]
    return rows


def test_template_is_the_checkpoints(run_script, root, tmp_path) -> None:
    """Scripts prompt as the model was trained; the published LLaVAs, whose config names no template, with vicuna_v1."""
    script = tmp_path / "template.sh"
    script.write_text(f'CKPT=$1; source {root}/scripts/v1_5/eval/common.sh; echo "template: ${{CONV:-its own}}"\n')
    (tmp_path / "config.json").write_text('{"conv_mode": "qwen_2"}')
    for checkpoint, variables, expected in (
        (tmp_path, {}, "its own"),
        (tmp_path, {"CONV": "plain"}, "plain"),
        ("liuhaotian/llava-v1.5-7b", {}, "vicuna_v1"),
    ):
        ran = run_script(script, checkpoint, **variables)
        assert ran.stdout.strip() == f"template: {expected}", ran.stderr


def test_one_process_and_three_give_the_same_file(script, world) -> None:
    """And a budget's answers go to separate files."""
    for chunks, name in ((1, "one"), (3, "three")):
        ran = script("pope", CHUNKS=chunks, NAME=name, BUDGET="0.75")
        assert ran.returncode == 0 and re.search(SAYS["pope"], ran.stdout), ran.stderr + ran.stdout
    answers = world / "pope" / "answers"
    assert timeless(answers / "one.jsonl") == timeless(answers / "three.jsonl")
    assert {row["metadata"]["granted"] for row in timeless(answers / "one.jsonl")} == {0.75}
    assert not list(answers.rglob("*.part")) and not list(answers.rglob("*.new"))


def test_a_failed_process_leaves_no_answers(script, world) -> None:
    ran = script("textvqa", CHUNKS=2, NAME="bad", BUDGET="2")
    assert ran.returncode == 2 and "nothing is merged" in ran.stderr and "argument --latency-budget: '2'" in ran.stderr
    assert not (world / "textvqa" / "answers" / "bad.jsonl").exists() and "Accuracy" not in ran.stdout
    ran = script("textvqa", CHUNKS="none")
    assert ran.returncode == 2 and "CHUNKS is 'none'" in ran.stderr


@pytest.mark.parametrize("name", slow_except(SAYS, "mme", "vqav2"))
def test_every_script_in_its_small_setting(run_script, world, name: str) -> None:
    """The bundled model, under a budget; only the benchmarks' folder is given, so that their number is small."""
    ran = run_script(f"scripts/v1_5/eval/{name}.sh", "--max_new_tokens", 3, PRESET="shapes", DATA=world, BUDGET="0.6")
    assert ran.returncode == 0 and re.search(SAYS[name], ran.stdout), ran.stderr + ran.stdout


def test_science_qa_answered_in_parts_is_scored_once_they_are_gathered(run_script, world) -> None:
    settings = {"PRESET": "shapes", "DATA": world, "NAME": "parts", "CHUNKS": 2}
    early = run_script("scripts/sqa_eval_gather.sh", **settings)
    assert early.returncode == 2 and "there is no" in early.stderr and "CHUNKS is 2" in early.stderr
    answered = run_script("scripts/sqa_eval_batch.sh", "--single-pred-prompt", "--max_new_tokens", 3, **settings)
    assert answered.returncode == 0, answered.stderr
    assert not (world / "scienceqa/answers/parts.jsonl").exists()
    gathered = run_script("scripts/sqa_eval_gather.sh", **settings)
    assert gathered.returncode == 0 and re.search(SAYS["sqa"], gathered.stdout), gathered.stderr
    rows = timeless(world / "scienceqa/answers/parts.jsonl")
    assert [row["question_id"] for row in rows] == [str(number) for number in range(6)]


def test_preset_that_does_not_exist_is_refused(run_script) -> None:
    ran = run_script("scripts/v1_5/eval/pope.sh", PRESET="shape")
    assert ran.returncode == 2 and "PRESET is 'shape'; expected shapes" in ran.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reply", "says"),
    [("mmvet", "0.5", r'"questions": 6, "total": 50.0'), ("llavabench", "8 6", r"all 75.0 80.0 60.0")],
)
def test_judged_scripts(script, judge, name: str, reply: str, says: str) -> None:
    judge.replies = [reply]
    own = {variable: os.environ[variable] for variable in ("OPENAI_BASE_URL", "OPENAI_API_KEY")}
    for _ in range(2):  # the second time all is answered and judged
        ran = script(name, NAME="judged", JUDGE="fair", **own)
        assert ran.returncode == 0 and re.search(says, ran.stdout), ran.stderr + ran.stdout
    assert len(judge.asked) == 6 and judge.asked[0][2]["model"] == "fair"


def test_every_benchmark_has_its_script(root) -> None:
    scripts = {path.stem for path in (root / "scripts" / "v1_5" / "eval").glob("*.sh")} - {"common"}
    assert scripts == {*SAYS, "lmms"}  # lmms: tests/e2e/test_lmms.py
    assert len(scripts) == len(BENCHMARKS) + 1  # Q-Bench's two languages are one benchmark
