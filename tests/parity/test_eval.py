"""POPE, TextVQA, ScienceQA, MMBench: the figures, normalised answers and prompts that upstream gives."""

import base64
import csv
import io
import json
import re
import subprocess
import sys

import pytest
from PIL import Image

from llava.conversation import conv_templates
from llava.errors import DataError
from llava.eval import eval_pope, eval_science_qa, eval_textvqa, m4c_evaluator, model_vqa_mmbench
from llava.eval.model_vqa import get_chunk
from llava.files.jsonl import lines_of

COUNTS = ("TP", "FP", "TN", "FN")


@pytest.fixture(scope="module")
def recorded(golden):
    return json.loads((golden / "eval.json").read_text())


def test_pope(recorded):
    for case in recorded["pope"]:
        assert [eval_pope.yes_or_no(text) for text in case["texts"]] == case["normalized"]
        if case["error"]:  # upstream divides by zero; here it is an error that says so
            with pytest.raises(DataError, match="undefined"):
                eval_pope.pope_scores(case["texts"], case["labels"])
            continue
        scores = eval_pope.pope_scores(case["texts"], case["labels"])
        assert scores == {name: case[name] for name in scores} and len(scores) == 9
        assert eval_pope.report(scores).split("\n") == case["printed"]


def test_pope_program(recorded, tmp_path, capsys):
    script = recorded["pope_script"]
    (tmp_path / "coco").mkdir()
    for category, labels in script["labels"].items():
        lines = lines_of({"label": label} for label in labels)
        (tmp_path / "coco" / f"coco_pope_{category}.json").write_text(lines)
    for name in ("questions", "answers"):
        (tmp_path / f"{name}.jsonl").write_text(lines_of(script[name]))
    flags = ["--annotation-dir", "coco", "--question-file", "questions.jsonl", "--result-file", "answers.jsonl"]
    assert eval_pope.main([f if f.startswith("--") else str(tmp_path / f) for f in flags]) == 0
    blocks = [block.strip().split("\n") for block in re.split(r"=+\n", capsys.readouterr().out) if block]
    assert sorted(blocks) == sorted(script["printed_per_category"].values())


def test_answer_normalisation(recorded):
    processor = m4c_evaluator.EvalAIAnswerProcessor()
    assert [[text, processor(text)] for text, _ in recorded["answer_processor"]] == recorded["answer_processor"]


def test_textvqa_scores(recorded):
    evaluator, cases = m4c_evaluator.TextVQAAccuracyEvaluator(), recorded["textvqa_scores"]
    for case in cases["each"]:
        assert evaluator.scores([{"pred_answer": case["pred"], "gt_answers": case["gts"]}]) == [case["score"]]
        assert evaluator.unique_scores(case["gts"]) == case["unique_scores"]
    entries = [{"pred_answer": case["pred"], "gt_answers": case["gts"]} for case in cases["each"]]
    assert evaluator.eval_pred_list(entries) == cases["all"]
    with pytest.raises(DataError, match="9 answers"):  # an AssertionError upstream
        evaluator.unique_scores(["red"] * 9)


def test_textvqa_prompts(recorded):
    for prompt, question in recorded["textvqa_prompt_processor"]:
        if isinstance(question, dict):
            with pytest.raises(DataError, match="no TextVQA prompt"):
                eval_textvqa.prompt_processor(prompt)
        else:
            assert eval_textvqa.prompt_processor(prompt) == question


def test_textvqa_program(recorded, tmp_path, capsys):
    script = recorded["textvqa_script"]
    (tmp_path / "a.json").write_text(json.dumps(script["annotations"]))
    (tmp_path / "r.jsonl").write_text(lines_of(script["results"]))
    flags = ["--annotation-file", str(tmp_path / "a.json"), "--result-file", str(tmp_path / "r.jsonl")]
    assert eval_textvqa.main(flags) == script["rc"] == 0
    assert capsys.readouterr().out == script["stdout"]


def test_science_qa_letters(recorded):
    for case in recorded["scienceqa_get_pred_idx"]:
        choices = ["x"] * case["n_choices"]
        assert eval_science_qa.get_pred_idx(case["prediction"], choices, eval_science_qa.LETTERS) == case["result"], (
            case
        )


def test_science_qa_program(recorded, tmp_path, capsys):
    script = recorded["scienceqa_script"]
    (tmp_path / "problems.json").write_text(json.dumps(script["problems"]))
    (tmp_path / "pid_splits.json").write_text(json.dumps({"test": list(script["problems"])}))
    (tmp_path / "r.jsonl").write_text(lines_of(script["predictions"]))
    out, result = tmp_path / "out.json", tmp_path / "result.json"
    flags = {"--base-dir": tmp_path, "--result-file": tmp_path / "r.jsonl", "--output-file": out}
    pairs = {**flags, "--output-result": result}
    assert eval_science_qa.main([str(x) for pair in pairs.items() for x in pair]) == 0
    assert capsys.readouterr().out.strip() == script["printed"]
    assert json.loads(result.read_text()) == script["sqa_results"]
    analysis = json.loads(out.read_text())
    rows = analysis["correct"] + analysis["incorrect"]
    assert {row["question_id"]: row["parsed_ans"] for row in rows} == script["parsed"]
    assert [row["question_id"] for row in analysis["correct"]] == script["correct_ids"]


def test_missing_cells(recorded):
    for value, missing in recorded["mmbench"]["is_none"]:
        assert model_vqa_mmbench.is_none(float("nan") if value == "float nan" else value) is missing, value


@pytest.fixture(scope="module")
def table(recorded, tmp_path_factory):
    """The recorded rows as MMBench's file; a null is an empty cell."""
    buffer = io.BytesIO()
    Image.new("RGB", (20, 12)).save(buffer, "png")
    rows = recorded["mmbench"]["rows"]
    path = tmp_path_factory.mktemp("mmbench") / "table.tsv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0], "image"], delimiter="\t")
        writer.writeheader()
        image = base64.b64encode(buffer.getvalue()).decode()
        writer.writerows({**row, "image": image} for row in rows)
    return path


def test_mmbench_prompts_and_records(recorded, table):
    assert recorded["mmbench"]["runs"], "the folder records no runs"
    for run in recorded["mmbench"]["runs"]:
        flags = {name: run[name] for name in ("all_rounds", "single_pred_prompt", "lang")}
        questions = model_vqa_mmbench.read_questions(table, **flags)
        assert len(questions) == len(run["answers"]) == len(run["requests"])
        for question, request, answer in zip(questions, run["requests"], run["answers"], strict=True):
            conversation = conv_templates[run["conv_mode"]].copy()
            conversation.append_message(conversation.roles[0], f"<image>\n{question.text}")
            conversation.append_message(conversation.roles[1], None)
            assert conversation.get_prompt() == request["prompt"]
            assert [list(question.open_image().size)] == request["generate_kwargs"]["image_sizes"]
            after_text = {name: answer[name] for name in ("text", "answer_id", "model_id", "metadata")}
            assert {**question.fields, **question.after, **after_text} == answer


def test_chunks(recorded):
    for case in recorded["get_chunk"]:
        items = list(range(case["n_items"]))
        for index, chunk in enumerate(case["chunks"]):
            assert get_chunk(items, case["n"], index) == chunk
        assert all(get_chunk(items, case["n"], index) == [] for index in range(len(case["chunks"]), case["n"]))


def test_upstreams_shell_lines_start(root):
    """The modules are programs under upstream's names."""
    for module in ("eval_pope", "eval_textvqa", "eval_science_qa"):
        ran = subprocess.run([sys.executable, f"llava/eval/{module}.py"], cwd=root, capture_output=True, text=True)
        assert ran.returncode == 2 and "--result-file" in ran.stderr, ran.stderr
