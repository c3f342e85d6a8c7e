"""Every scorer and every conversion, on answers that do not match their questions and on empty files: a message, a
non-zero exit, and nothing under a final name; and the programs that take a time, on what is none."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ada.latency.device_profile import VERSION, DeviceFingerprint
from ada.latency.latency_model import DECODE_TERMS, PLAN_TERMS, REST_TERMS
from llava.files.jsonl import lines_of
from llava.model.builder import load_pretrained_model
from playground.shapes.benchmarks import write_benchmarks

# By benchmark: its questions, and the programs that read the answers. {d}: its folder; {a}: the answers, {v} and {p}:
# the same converted; {o}: what is written.
QUESTIONS = {
    "pope": "llava_pope_test.jsonl",
    "MME": "llava_mme.jsonl",
    "textvqa": "llava_textvqa_val_v051_ocr.jsonl",
    "scienceqa": "llava_test_CQM-A.json",
    "mmbench": "mmbench_dev_20230712.tsv",
    "seed_bench": "llava-seed-bench.jsonl",
    "vqav2": "llava_vqav2_mscoco_test-dev2015.jsonl",
    "vizwiz": "llava_test.jsonl",
    "mm-vet": "llava-mm-vet.jsonl",
    "gqa": "llava_gqa_testdev_balanced.jsonl",
    "llava-bench-in-the-wild": "questions.jsonl",
}
ANSWERS = {
    "MME": "answers/bad.jsonl",
    "vqav2": "answers/llava_vqav2_mscoco_test-dev2015/bad/merge.jsonl",
    "mmbench": "answers/bad.jsonl",
}
VQAV2_UPLOAD = "answers_upload/llava_vqav2_mscoco_test-dev2015/bad.json"
PROGRAMS = {
    "pope": "eval_pope --annotation-dir {d}/coco --question-file {d}/llava_pope_test.jsonl --result-file {a}",
    "MME": "convert_answer_to_mme --dir {d} --experiment bad",
    "textvqa": "eval_textvqa --annotation-file {d}/TextVQA_0.5.1_val.json --result-file {a}",
    "scienceqa": "eval_science_qa --base-dir {d} --result-file {a} --output-file {o} --output-result {o}.json",
    "mmbench": "eval_mmbench --annotation-file {d}/mmbench_dev_20230712.tsv --result-file {a}",
    "mmbench for its server": "convert_mmbench_for_submission --annotation-file {d}/mmbench_dev_20230712.tsv "
    "--result-dir {d}/answers --upload-dir {o} --experiment bad",
    "seed_bench": "convert_seed_for_submission --annotation-file {d}/SEED-Bench.json --result-file {a} "
    "--result-upload-file {o}",
    "vqav2": "convert_vqav2_for_submission --dir {d} --split llava_vqav2_mscoco_test-dev2015 --ckpt bad",
    "vizwiz": "convert_vizwiz_for_submission --annotation-file {d}/llava_test.jsonl --result-file {a} "
    "--result-upload-file {o}",
    "mm-vet": "eval_mmvet --questions {d}/mm-vet.json --results {v} --output {o}",
    "gqa": "eval_gqa --questions {d}/data/testdev_balanced_questions.json --predictions {p}",
    "llava-bench-in-the-wild": "eval_gpt_review_bench --question {d}/questions.jsonl --context {d}/context.jsonl "
    "--answer-list {d}/answers_gpt4.jsonl {a} --output {o}",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    write_benchmarks(folder, 0, 4, [])
    return folder


def main_of(root: Path, name: str):
    """A scorer's or a conversion script's ``main``."""
    if name.startswith("eval_"):
        return importlib.import_module(f"llava.eval.{name}").main
    spec = importlib.util.spec_from_file_location(name, root / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def good_answers(folder: Path, name: str) -> list[dict]:
    """An answer to every question, in the runner's record shape."""
    path = folder / QUESTIONS[name]
    if path.suffix == ".tsv":
        ids = [line.split("\t")[0] for line in path.read_text().splitlines()[1:]]
        extra = {"round_id": 0, "options": ["a", "b"], "option_char": ["A", "B"]}
        return [{"question_id": int(key), "prompt": "?", "text": "A", **extra} for key in ids]
    if path.suffix == ".json":
        rows = json.loads(path.read_text())
        return [{"question_id": r["id"], "prompt": r["conversations"][0]["value"], "text": "A"} for r in rows]
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{"question_id": row["question_id"], "prompt": row["text"], "text": "yes"} for row in rows]


def run(root: Path, world: Path, case: str, rows: list[dict], out: Path) -> int:
    """The exit code of the program on these answers."""
    name = case.partition(" ")[0]
    folder = world / name
    answers = folder / ANSWERS.get(name, "answers/bad.jsonl")
    answers.parent.mkdir(parents=True, exist_ok=True)
    answers.write_text(lines_of(rows))
    by_question = folder / "by_question.json"  # as the conversion before these judges leaves it
    by_question.write_text(json.dumps({f"v1_{row['question_id']}": row["text"] for row in rows}))
    predictions = folder / "predictions.json"
    predictions.write_text(json.dumps([{"questionId": r["question_id"], "prediction": r["text"]} for r in rows]))
    program, *flags = PROGRAMS[case].split(" ")
    indices = {"d": folder, "a": answers, "o": out, "v": by_question, "p": predictions}
    return main_of(root, program)([flag.format(**indices) for flag in flags])


def changed(rows: list[dict], fault: str) -> list[dict]:
    if fault == "empty":
        return []
    if fault == "twice":
        return [*rows, rows[0]]
    strange = "99999" if isinstance(rows[-1]["question_id"], str) else 99999
    return [*rows[:-1], {**rows[-1], "question_id": strange}]


@pytest.mark.parametrize("fault", ["empty", "another question", "twice"])
@pytest.mark.parametrize("case", PROGRAMS)
def test_answers_that_do_not_match(root, world, judge, tmp_path, capsys, case: str, fault: str) -> None:
    if fault == "twice" and case == "mm-vet":
        pytest.skip("by name in a JSON object")
    name, out = case.partition(" ")[0], tmp_path / "out"
    assert run(root, world, case, changed(good_answers(world / name, name), fault), out) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and "Traceback" not in said.err
    assert not said.out.strip() and not list(tmp_path.iterdir()), "neither a figure nor a file"
    assert not (world / "vqav2" / VQAV2_UPLOAD).exists() and not (world / "MME" / "eval_tool").exists()
    assert not judge.asked


@pytest.mark.parametrize("case", PROGRAMS)
def test_the_same_programs_take_good_answers(root, world, judge, tmp_path, capsys, case: str) -> None:
    """So that the refusals above are of the faults."""
    judge.replies = ["0.5" if case == "mm-vet" else "8 6"]
    name = case.partition(" ")[0]
    code = run(root, world, case, good_answers(world / name, name), tmp_path / "out")
    assert code == 0, capsys.readouterr().err
    for path in (world / "vqav2" / VQAV2_UPLOAD, world / "MME" / "eval_tool"):  # the other tests want none
        if path.is_file():
            path.unlink()
        elif path.is_dir():
            for inside in sorted(path.rglob("*"), reverse=True):
                inside.unlink() if inside.is_file() else inside.rmdir()
            path.rmdir()


@pytest.mark.parametrize("program", ["scripts/convert_gqa_for_eval.py", "scripts/convert_mmvet_for_eval.py"])
def test_conversions_as_programs(root, tmp_path, program: str) -> None:
    (tmp_path / "answers.jsonl").write_text("")
    flags = ["--src", str(tmp_path / "answers.jsonl"), "--dst", str(tmp_path / "out.json")]
    env = {**os.environ, "PYTHONPATH": str(root)}
    ran = subprocess.run([sys.executable, program, *flags], cwd=root, env=env, capture_output=True, text=True)
    assert ran.returncode == 2 and "is empty" in ran.stderr and "Traceback" not in ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["answers.jsonl"]


BUDGETS = ("0ms", "-5ms", "3 parsecs")


def programs_that_answer(checkpoint: Path, image_file: Path, folder: Path) -> dict[str, list[str]]:
    """Module -> flags with which it answers, all but the budget."""
    (folder / "questions.jsonl").write_text(lines_of([{"question_id": 1, "image": image_file.name, "text": "w5"}]))
    model = ["--model-path", str(checkpoint), "--device", "cpu"]
    files = ["--question-file", str(folder / "questions.jsonl"), "--answers-file", str(folder / "answers.jsonl")]
    asked = [*model, *files, "--image-folder", str(image_file.parent)]
    return {
        "llava.eval.run_llava": [*model, "--image-file", str(image_file), "--query", "w5"],
        "llava.serve.cli": [*model, "--image-file", str(image_file)],
        "llava.eval.model_vqa": asked,
        "llava.eval.model_vqa_loader": asked,
        "llava.serve.model_worker": model,
        "ada.cost": [],
    }


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize(
    "module",
    [
        "llava.eval.run_llava",
        "llava.serve.cli",
        "llava.eval.model_vqa_loader",
        "llava.serve.model_worker",
        "ada.cost",
    ],
)
def test_budgets_that_are_no_time(adaptive_checkpoint, image_file, tmp_path, capsys, module, budget) -> None:
    flags = programs_that_answer(adaptive_checkpoint, image_file, tmp_path)[module]
    program = importlib.import_module("ada.cost.__main__" if module == "ada.cost" else module)
    try:
        code = program.main([*flags, "--latency-budget", budget])
    except SystemExit as error:  # argparse's, where the flag is read
        code = error.code
    said = capsys.readouterr()
    assert code == 2 and "--latency-budget" in said.err and budget in said.err and "Traceback" not in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["questions.jsonl"]


@pytest.fixture
def stored(adaptive_checkpoint, tmp_path, monkeypatch):
    """``stored(**changes)``: a changed profile of the tiny model in a cache folder of this test; returns its path."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = load_pretrained_model(str(adaptive_checkpoint), None, "tiny", device="cpu")[1]
    here = DeviceFingerprint.of(model)

    def store(version: int = VERSION, **changes: object) -> Path:
        terms = {"plan": PLAN_TERMS, "rest": REST_TERMS, "decode": DECODE_TERMS}
        fields: dict[str, object] = {name: [1.0] * len(own) for name, own in terms.items()}
        fields |= {"errors": {}, "date": "2026-01-01"}
        fields |= {"spread": 1.1, "rest_spread": 1.1}
        fields |= {"surroundings": {**vars(here), **changes}, "version": version}
        here.path.parent.mkdir(parents=True)
        here.path.write_text(json.dumps(fields))
        return here.path

    return store


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "cuda"}, "another device: cuda"),
        ({"torch": "1.0"}, "another torch: 1.0"),
        ({"transformers": "4.0"}, "another transformers: 4.0"),
        ({"version": 99}, "has version 99"),
    ],
)
def test_profiles_of_other_surroundings(run_once, stored, adaptive_checkpoint, image_file, changes, message) -> None:
    path = stored(**changes)
    before = path.read_bytes()
    flags = ("--model-path", adaptive_checkpoint, "--image-file", image_file, "--device", "cpu", "--query", "w5")
    ran = run_once(*flags, "--latency-budget", "9s", "--no-auto-calibrate")
    assert ran.code == 2 and message in ran.err and "python -m ada.calibrate" in ran.err
    assert not ran.out and path.read_bytes() == before


def test_a_time_for_batches_is_refused(adaptive_checkpoint, image_file, tmp_path, capsys) -> None:
    from llava.eval import model_vqa

    flags = programs_that_answer(adaptive_checkpoint, image_file, tmp_path)["llava.eval.model_vqa"]
    assert model_vqa.main([*flags, "--batch-size", "4", "--latency-budget", "9s"]) == 2
    assert "--batch-size is 4" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["questions.jsonl"]
