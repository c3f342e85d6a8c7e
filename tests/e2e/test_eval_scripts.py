"""The benchmark scripts, run for real on the shapes world's benchmarks with a tiny checkpoint."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from playground.shapes.benchmarks import BENCHMARKS, write_benchmarks

STAMP = "cat pyproject.toml constraints.txt <(echo \"$PWD[eval]\") | cksum | cut -d' ' -f1"  # as scripts/venv.sh has it
SAYS = {
    "pope": r"Category: random, # samples: 2\nTP\tFP\tTN\tFN\t\n1\t1\t0\t0\nAccuracy: 0.5",
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
def script(root, world, adaptive_checkpoint, tmp_path):
    """``script(name, *flags, **variables)``: the finished process. Nothing is installed on the way."""
    environment = tmp_path / "environment"
    environment.mkdir()
    digest = subprocess.run(["bash", "-c", STAMP], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    (environment / f".ada-llava-{digest}").touch()
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("OPENAI") and k != "CUDA_VISIBLE_DEVICES"}

    def run(name: str, *flags: str, **variables: object) -> subprocess.CompletedProcess:
        own = {"DATA": world, "CKPT": adaptive_checkpoint, "VIRTUAL_ENV": environment, "PYTHONPATH": root}
        own |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1", **variables}
        command = ["bash", str(root / f"scripts/v1_5/eval/{name}.sh"), "--max_new_tokens", "3", *flags]
        settings = {**inherited, **{key: str(value) for key, value in own.items()}}
        return subprocess.run(command, env=settings, capture_output=True, text=True)

    return run


def timeless(path: Path) -> list[dict]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        for name in ("time_to_first_token_ms", "tokens_per_second"):
            del row["metadata"][name]
    return rows


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


@pytest.mark.slow
@pytest.mark.parametrize("name", SAYS)
def test_every_script(script, name: str) -> None:
    for budget in ("1", "0.6"):
        ran = script(name, BUDGET=budget)
        assert ran.returncode == 0 and re.search(SAYS[name], ran.stdout), ran.stderr + ran.stdout


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
