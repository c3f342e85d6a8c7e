"""Every program that reads users' files, with any JSON value in any place of one of them: a result, or a user error."""

from __future__ import annotations

import base64
import importlib
import importlib.util
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fixtures.odd_values import JSON, VALUES, by_line, paths_of, with_value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from llava.eval.answering import runner
from llava.eval.scoring.llm_judge import Judge
from llava.files.jsonl import lines_of

ANSWER = {"question_id": "0", "prompt": "What?\nAnswer.", "text": "Yes", "answer_id": "a"}
SQA = {"problems.json": {"0": {"choices": ["x", "y"], "answer": 1}}, "pid_splits.json": {"test": ["0"]}}
STATED = {"question_id": "0", "prompt": "q", "text": "The answer is A."}
PEOPLE = ["red"] * 10
REVIEWED = {
    "q.jsonl": [{"question_id": 0, "image": "0.png", "text": "what?", "category": "conv"}],
    "a.jsonl": [ANSWER],
    "b.jsonl": [{**ANSWER, "text": "No"}],
}
SIDES = "--question {d}/q.jsonl --answer-list {d}/a.jsonl {d}/b.jsonl --output {o}"
ASKED = "--question-file {d}/q.jsonl --image-folder {d} --answers-file {o}"
CONTEXT = {"image": "0.png", "captions": ["a"], "instances": [{"category": "cat", "bbox": [0, 0.1, 1, 1]}]}


@dataclass(frozen=True)
class Case:
    """A program, its input files by name, and its flags: {d} is their folder, {o} what is written."""

    program: str
    files: dict[str, Any]
    flags: str


CASES = [
    Case(
        "eval_pope",
        {
            "q.jsonl": [{"question_id": 0, "category": "random", "image": "0.png", "text": "Is there?\nAnswer."}],
            "a.jsonl": [ANSWER],
            "coco_pope_random.jsonl": [{"question_id": 1, "image": "0.png", "text": "Is there?", "label": "yes"}],
        },
        "--annotation-dir {d} --question-file {d}/q.jsonl --result-file {d}/a.jsonl",
    ),
    Case(
        "eval_textvqa",
        {
            "t.json": {"data": [{"image_id": "0", "question": "What?", "answers": PEOPLE}]},
            "a.jsonl": [ANSWER],
        },
        "--annotation-file {d}/t.json --result-file {d}/a.jsonl",
    ),
    Case(
        "eval_vqa",
        {
            "t.json": {"annotations": [{"question_id": 0, "answers": [{"answer": a} for a in PEOPLE]}]},
            "a.json": [{"question_id": 0, "answer": "red"}],
        },
        "--annotation-file {d}/t.json --result-file {d}/a.json",
    ),
    Case(
        "eval_gqa",
        {
            "t.json": {"0": {"answer": "red", "types": {"structural": "query"}}},
            "a.json": [{"questionId": "0", "prediction": "red"}],
        },
        "--questions {d}/t.json --predictions {d}/a.json",
    ),
    Case(
        "eval_science_qa",
        {**SQA, "a.jsonl": [ANSWER]},
        "--base-dir {d} --result-file {d}/a.jsonl --output-file {o} --output-result {o}.json",
    ),
    Case(
        "eval_science_qa_gpt4",
        {**SQA, "a.jsonl": [STATED], "g.json": {"outputs": {"0": "The answer is B."}}},
        "--base-dir {d} --gpt4-result {d}/g.json --our-result {d}/a.jsonl",
    ),
    Case(
        "eval_science_qa_gpt4_requery",
        {**SQA, "a.jsonl": [STATED], "r.jsonl": [STATED], "g.json": {"outputs": {"0": "The answer is B."}}},
        "--base-dir {d} --gpt4-result {d}/g.json --our-result {d}/a.jsonl --requery-result {d}/r.jsonl "
        "--output-result {o}",
    ),
    Case(
        "eval_mmbench",
        {"a.jsonl": [{"question_id": 0, "round_id": 0, "text": "A", "option_char": ["A", "B"]}]},
        "--annotation-file {d}/t.tsv --result-file {d}/a.jsonl",
    ),
    Case(
        "eval_mmvet",
        {
            "q.json": {"v1_0": {"question": "q", "answer": "a", "capability": ["ocr"]}},
            "r.json": {"v1_0": "a"},
            "out.part": [{"question_id": "v1_0", "prediction": "a", "mark": 0.5}],
        },
        "--questions {d}/q.json --results {d}/r.json --output {d}/out",
    ),
    Case("eval_gpt_review", REVIEWED, SIDES),
    Case(
        "eval_gpt_review_bench",
        {
            **REVIEWED,
            "c.jsonl": [{"image": "0.png", "caption": ["a", "b"]}],
            "rules.json": {"llava_bench_conv": {"role": "A", "prompt": "p"}},
        },
        SIDES + " --context {d}/c.jsonl --rule {d}/rules.json",
    ),
    Case("eval_gpt_review_visual", {**REVIEWED, "c.jsonl": [CONTEXT]}, SIDES + " --context {d}/c.jsonl"),
    Case(
        "summarize_gpt_review",
        {"r.jsonl": [{"question_id": 0, "category": "c", "tuple": [8, 6]}, {"question_id": 1, "score": [7, 7.5]}]},
        "--files {d}/r.jsonl --ignore 9",
    ),
    Case(
        "generate_webpage_data_from_table",
        {
            "q.jsonl": [
                {"question_id": 0, "category": "c", "text": "q"},
                {"question_id": 1, "category": "c", "text": "q"},
            ],
            "a.jsonl": [{"question_id": n, "text": "a"} for n in range(2)],
            "r.jsonl": [{"question_id": n, "content": "8 6\ngood", "tuple": [8, 6]} for n in range(2)],
        },
        "--questions {d}/q.jsonl --answers a={d}/a.jsonl --reviews a={d}/r.jsonl --output {o}",
    ),
    Case(
        "qa_baseline_gpt35",
        {"q.jsonl": [{"question_id": 0, "text": "q"}, {"question_id": 1, "text": "q"}]},
        "--question {d}/q.jsonl --output {o}",
    ),
    Case("model_qa", {"q.jsonl": [{"question_id": 0, "text": "q"}]}, "--question-file {d}/q.jsonl --answers-file {o}"),
    Case("model_vqa", {"q.jsonl": [{"question_id": 0, "image": "0.png", "text": "q"}]}, ASKED),
    Case("model_vqa_loader", {"q.jsonl": [{"question_id": 0, "image": "0.png", "text": "q"}]}, ASKED),
    Case(
        "model_vqa_science",
        {"q.jsonl.json": [{"id": "0", "image": "0.png", "conversations": [{"from": "human", "value": "<image>\nq"}]}]},
        ASKED.replace("q.jsonl", "q.jsonl.json"),
    ),
    Case(
        "model_vqa_qbench",
        {"q.json": [{"img_path": "0.png", "question": "q", "candidates": ["x", "y"], "correct_ans": "x"}]},
        "--questions-file {d}/q.json --image-folder {d} --answers-file {o}",
    ),
    Case("convert_gqa_for_eval", {"a.jsonl": [ANSWER]}, "--src {d}/a.jsonl --dst {o}"),
    Case("convert_mmvet_for_eval", {"a.jsonl": [ANSWER]}, "--src {d}/a.jsonl --dst {o}"),
    Case(
        "convert_vizwiz_for_submission",
        {"q.jsonl": [{"question_id": "0", "image": "0.png"}], "a.jsonl": [ANSWER]},
        "--annotation-file {d}/q.jsonl --result-file {d}/a.jsonl --result-upload-file {o}",
    ),
    Case(
        "convert_seed_for_submission",
        {
            "t.json": {
                "question_type": {"Scene": 1},
                "questions": [{"question_id": "0", "question_type_id": 1, "data_type": "image", "answer": "A"}],
            },
            "a.jsonl": [ANSWER],
        },
        "--annotation-file {d}/t.json --result-file {d}/a.jsonl --result-upload-file {o}",
    ),
    Case(
        "convert_vqav2_for_submission",
        {"answers/s/c/merge.jsonl": [ANSWER], "llava_vqav2_mscoco_test2015.jsonl": [{"question_id": "0"}]},
        "--dir {d} --split s --ckpt c",
    ),
    Case(
        "convert_mmbench_for_submission",
        {"e.jsonl": [{"question_id": 0, "round_id": 0, "text": "A"}]},
        "--annotation-file {d}/t.tsv --result-dir {d} --upload-dir {d}/up --experiment e",
    ),
    Case(
        "convert_sqa_to_llava",
        {
            "pid_splits.json": {"test": ["0", 1]},
            "problems.json": {
                str(n): {
                    "question": "q",
                    "choices": ["x", "y"],
                    "answer": n,
                    "hint": "",
                    "lecture": "",
                    "solution": "",
                    "image": None,
                }
                for n in range(2)
            },
        },
        "convert_to_llava --base-dir {d} --split test",
    ),
    Case(
        "convert_answer_to_mme",
        {
            "answers/e.jsonl": [
                {"question_id": "color/0.png", "prompt": f"{q} Please answer yes or no.", "text": "Yes"} for q in "ab"
            ]
        },
        "--dir {d} --experiment e",
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with an image, MMBench's table of one question, and MME's truths of two."""
    folder = tmp_path_factory.mktemp("inputs")
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "png")
    (folder / "0.png").write_bytes(buffer.getvalue())
    image = base64.b64encode(buffer.getvalue()).decode()
    (folder / "t.tsv").write_text(f"index\tquestion\tA\tB\tC\tD\tanswer\timage\n0\tq\tx\ty\t\t\tA\t{image}\n")
    truths = folder / "MME_Benchmark_release_version" / "color"
    truths.mkdir(parents=True)
    (truths / "0.png").touch()
    (truths / "0.txt").write_text("".join(f"{q} Please answer yes or no.\tYes\n" for q in "ab"))
    return folder


@pytest.fixture(scope="module", autouse=True)
def answers_without_models(folder):
    """Judges give marks, and models answer nothing: what is read is tested, not what is asked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "key")
        patch.setattr(Judge, "ask", lambda judge, system, content: "0.5" if "Mark:" in content else "8 6")
        patch.setattr(runner, "run", lambda questions, args: None)
        yield


def main_of(root: Path, program: str):
    if not program.startswith("convert_"):
        return importlib.import_module(f"llava.eval.{program}").main
    spec = importlib.util.spec_from_file_location(program, root / "scripts" / f"{program}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def run(main: Any, case: Case, folder: Path, name: str = "", content: Any = None) -> int:
    for own, good in case.files.items():
        path = folder / own.replace("coco_pope_random.jsonl", "coco_pope_random.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = content if own == name else good
        text = lines_of(rows) if by_line(own) else json.dumps(rows)
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
    for written in ("o.out", "o.out.json", "o.out.part", "out"):
        (folder / written).unlink(missing_ok=True)
    return main(case.flags.format(d=folder, o=folder / "o.out").split())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.program)
def test_good_files_give_a_result(root, folder, capsys, case) -> None:
    assert run(main_of(root, case.program), case, folder) == 0, capsys.readouterr().err


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.program)
def test_an_odd_value_in_any_place_is_a_user_error_or_gives_a_result(root, folder, capsys, case) -> None:
    main = main_of(root, case.program)
    for name, good in case.files.items():
        for at in paths_of(name, good):
            for value in VALUES:
                code = run(main, case, folder, name, with_value(good, at, value))
                said = capsys.readouterr().err
                assert code == 0 or (code == 2 and "\nerror: " in f"\n{said}"), (name, at, value, said)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.program)
@given(data=st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_in_any_place_is_a_user_error_or_gives_a_result(root, folder, capsys, case, data) -> None:
    name = data.draw(st.sampled_from(sorted(case.files)))
    at = data.draw(st.sampled_from(paths_of(name, case.files[name])))
    content = with_value(case.files[name], at, data.draw(JSON))
    code = run(main_of(root, case.program), case, folder, name, content)
    said = capsys.readouterr().err
    assert code == 0 or (code == 2 and "\nerror: " in f"\n{said}"), said
