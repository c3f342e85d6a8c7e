"""The benchmark files: readable by the programs, true to their images, and apart from training."""

from __future__ import annotations

import base64
import itertools
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from llava.eval import (
    eval_gqa,
    eval_mmbench,
    eval_mme,
    eval_pope,
    eval_science_qa,
    eval_textvqa,
    eval_vqa,
    model_vqa,
    model_vqa_mmbench,
    model_vqa_science,
)
from llava.eval.eval_mmbench.table import read_table
from llava.eval.eval_mme.ground_truth import read_truth
from llava.eval.scoring import submissions
from llava.files.jsonl import lines_of, read_records
from playground.shapes import benchmark_scenes, benchmarks_choice, generate
from playground.shapes.benchmark_scenes import Bench
from playground.shapes.benchmarks import BENCHMARKS, write_benchmarks
from playground.shapes.questions import KINDS
from playground.shapes.saving import save_image

COUNT = 24
FILES = {  # what the scripts name: questions, folder of images
    "pope": ("llava_pope_test.jsonl", "val2014"),
    "MME": ("llava_mme.jsonl", "MME_Benchmark_release_version"),
    "textvqa": ("llava_textvqa_val_v051_ocr.jsonl", "train_images"),
    "vqav2": ("llava_vqav2_mscoco_test-dev2015.jsonl", "test2015"),
    "gqa": ("llava_gqa_testdev_balanced.jsonl", "data/images"),
    "vizwiz": ("llava_test.jsonl", "test"),
    "seed_bench": ("llava-seed-bench.jsonl", "."),
    "mm-vet": ("llava-mm-vet.jsonl", "images"),
    "llava-bench-in-the-wild": ("questions.jsonl", "images"),
    "lmms": ("questions.jsonl", "."),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """``eval/``, and the scene after every image that is a file."""
    folder, scenes = tmp_path_factory.mktemp("made"), {}

    def save(scene, path: Path) -> None:
        scenes[path] = scene
        save_image(scene, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark_scenes, "save_image", save)
        write_benchmarks(folder, 3, COUNT, [])
    return folder, scenes


def asked(folder: Path, name: str) -> list:
    file, images = FILES[name]
    return model_vqa.read_questions(folder / name / file, folder / name / images)


def answered(questions, truth) -> list[dict]:
    """Records whose text is ``truth(question)``."""
    return [{**q.fields, "text": truth(q), **q.after} for q in questions]


def test_every_folder_is_there(made):
    folder, _ = made
    assert {path.name for path in folder.iterdir()} == set(BENCHMARKS)
    assert not list(folder.rglob("*.part"))


@pytest.mark.parametrize("name", FILES)
def test_questions_have_their_images(made, name):
    questions = asked(made[0], name)
    assert len(questions) == {"vqav2": COUNT // 2}.get(name, COUNT)
    assert all(question.open_image().size == (96, 96) for question in questions)


def test_pope_labels_match_the_images(made):
    folder, scenes = made[0] / "pope", made[1]
    for category in ("random", "popular", "adversarial"):
        rows = read_records(folder / "coco" / f"coco_pope_{category}.json", "")
        assert [row["label"] for row in rows] == ["yes", "no"] * (COUNT // 6)
        for row in rows:
            labels = {item.label for item in scenes[folder / "val2014" / row["image"]].shapes}
            label = " ".join(row["text"].split()[3:5])
            assert (label in labels) == (row["label"] == "yes")
            if category == "adversarial":
                assert {*label.split()} & {part for other in labels for part in other.split()}
    files = {name: folder / "coco" / f"coco_pope_{name}.json" for name in ("adversarial", "popular", "random")}
    labels = {name: iter(read_records(file, "")) for name, file in files.items()}
    rows = read_records(folder / "llava_pope_test.jsonl", "")
    answers = [{"question_id": row["question_id"], "text": next(labels[row["category"]])["label"]} for row in rows]
    (folder / "answers.jsonl").write_text(lines_of(answers))
    scores = eval_pope.score(folder / "coco", folder / "llava_pope_test.jsonl", folder / "answers.jsonl")
    assert {name: own["accuracy"] for name, own in scores.items()} == dict.fromkeys(labels, 1.0)


def test_mme_answers_match_the_images(made):
    folder, scenes = made[0] / "MME", made[1]
    truth = read_truth(folder / "MME_Benchmark_release_version")
    assert len(truth) == COUNT
    for (category, image, text), answer in truth.items():
        scene = scenes[folder / "MME_Benchmark_release_version" / category / image]
        says = oracle(category, text.removesuffix(f" {submissions.YES_NO}").removesuffix("?"), scene)
        assert says == (answer == "Yes"), (category, text)
    questions = asked(made[0], "MME")
    records = answered(questions, lambda q: truth[(*q.question_id.split("/"), submissions.mme_question(q.prompt))])
    lines = submissions.mme_lines(records, truth)
    scores = eval_mme.mme_scores({name: [tuple(line.split("\t")) for line in own] for name, own in lines.items()})
    assert scores["Perception"]["total"] == 1000 and scores["Cognition"]["total"] == 200


def oracle(category: str, text: str, scene) -> bool:
    """The answer, from the words of the question and the scene alone."""
    shapes, words = scene.shapes, text.split()
    if category in ("existence", "color"):
        return any(item.label == " ".join(words[3:5]) for item in shapes)
    if category == "OCR":
        return text.split('"')[1] == scene.only("word").name
    if category == "position":
        one, other = (next(i for i in shapes if i.label == " ".join(words[at : at + 2])) for at in (2, 7))
        return one.x < other.x
    one, other = text.removeprefix("Are there more ").split(" than ")

    def count(name: str) -> int:
        if name.endswith(" objects"):
            return sum(item.colour == name.removesuffix(" objects") for item in shapes)
        return sum(name in (f"{item.name}s", f"{item.name}es") for item in shapes)

    return count(one) > count(other)


def test_true_answers_get_full_marks(made):
    folder, _ = made
    truth = json.loads((folder / "gqa/data/testdev_balanced_questions.json").read_text())
    records = answered(asked(folder, "gqa"), lambda q: truth[q.question_id]["answer"].capitalize() + ".")
    assert eval_gqa.gqa_scores(truth, submissions.gqa_predictions(records))["accuracy"] == 100

    data = json.loads((folder / "textvqa/TextVQA_0.5.1_val.json").read_text())["data"]
    words = {entry["image_id"]: entry["answers"][0] for entry in data}
    records = answered(asked(folder, "textvqa"), lambda q: words[q.question_id])
    entries = eval_textvqa.predictions(data, records)
    assert len(entries) == COUNT and all(entry["gt_answers"] == [entry["pred_answer"]] * 10 for entry in entries)

    annotations = json.loads((folder / "vqav2/v2_mscoco_test-dev2015_annotations.json").read_text())["annotations"]
    words = {entry["question_id"]: entry["multiple_choice_answer"] for entry in annotations}
    records = answered(asked(folder, "vqav2"), lambda q: words[q.question_id])
    upload = submissions.vqav2_upload(records, read_records(folder / "vqav2/llava_vqav2_mscoco_test2015.jsonl", ""))
    assert len(upload) == COUNT and eval_vqa.vqa_scores(annotations, upload, "question_id")["accuracy"] == 100

    people = json.loads((folder / "vizwiz/test.json").read_text())
    words = {entry["image"]: entry["answers"][0]["answer"] for entry in people}
    rows = read_records(folder / "vizwiz/llava_test.jsonl", "")
    records = [{"question_id": row["question_id"], "text": words[row["image"]]} for row in rows]
    upload = submissions.vizwiz_upload(records, rows)
    assert eval_vqa.vqa_scores(people, upload, "image")["accuracy"] == 100

    bench = json.loads((folder / "seed_bench/SEED-Bench.json").read_text())
    words = {question["question_id"]: question["answer"] for question in bench["questions"]}
    scores = submissions.seed_scores(answered(asked(folder, "seed_bench"), lambda q: words[q.question_id]), bench)
    assert scores["total"] == 100 and scores["by_data"] == {"image": 100}
    assert set(scores["by_type"]) <= {"colour", "shape", "counting", "reading"}


def test_science_qa(made):
    folder = made[0] / "scienceqa"
    questions = model_vqa_science.read_questions(
        folder / "llava_test_CQM-A.json", folder / "images/test", single_pred_prompt=True
    )
    problems = json.loads((folder / "problems.json").read_text())
    assert len(questions) == COUNT and sum(question.open_image is None for question in questions) == COUNT // 5
    (folder / "answers.jsonl").write_text(
        lines_of(answered(questions, lambda q: "ABCD"[problems[q.question_id]["answer"]]))
    )
    scores = eval_science_qa.score(folder, folder / "answers.jsonl")
    assert scores["acc"] == scores["image_acc"] == 100 and scores["count"] == COUNT


TABLES = [("mmbench", "mmbench_dev_20230712"), ("mmbench_cn", "mmbench_dev_cn_20231003")]


@pytest.mark.parametrize(("name", "table"), TABLES)
def test_mmbench(made, name, table):
    path = made[0] / name / f"{table}.tsv"
    questions, rows = model_vqa_mmbench.read_questions(path, all_rounds=True), read_table(path, "")
    assert len(questions) == 4 * len(rows) == 4 * COUNT
    truth = {int(row["index"]): row["answer"] for row in rows}
    right = answered(questions, lambda q: "ABCD"[q.after["option_char"].index(truth[q.question_id])])
    scores = eval_mmbench.mmbench_scores(rows, right)
    assert scores["accuracy"] == scores["circular_accuracy"] == 100
    assert all(base64.b64decode(row["image"]).startswith(b"\x89PNG") for row in rows)


def test_the_task_of_lmms_eval(made, monkeypatch):
    """Its YAML as lmms-eval reads it: functions are imported, paths are of the folder."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: pkgutil.resolve_name(loader.construct_scalar(node)))
    monkeypatch.chdir(made[0] / "lmms")
    task = yaml.load(Path("shapes_questions.yaml").read_text(), Loader)
    rows = read_records(Path(task["dataset_kwargs"]["data_files"][task["test_split"]]), "")
    assert len(rows) == COUNT and {row["category"] for row in rows} == set(KINDS)
    assert task["task"] == "shapes_questions" and task["generation_kwargs"]["until"] == []
    metrics = {metric["metric"] for metric in task["metric_list"]}
    for row in rows:
        (image_file,) = task["doc_to_visual"](row)
        assert (image_file.size, image_file.mode) == ((96, 96), "RGB")
        assert row[task["doc_to_text"]].endswith(("phrase.", "directly."))
        right = task["process_results"](row, [f"{row[task['doc_to_target']].upper()}."])
        assert right == {"accuracy": 1.0, f"accuracy_{row['category']}": 1.0} and right.keys() <= metrics
        assert set(task["process_results"](row, ["neither"]).values()) == {0.0}


def test_sorts_of_choices():
    from playground.shapes.questions import Question

    def component(text: str, *options: str) -> str:
        lines = "\n".join(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=True))
        return benchmarks_choice.topic_of(Question("choice", f"{text}\n{lines}", "A"))

    assert component("How many red stars are there?", *"0123") == "counting"
    assert component("What number is shown?", *"5678") == "reading"
    assert component("What does the text say?", "ant", "bag", "bed", "bee") == "reading"
    assert component("Which colour does the star have?", "red", "blue", "green", "black") == "colour"
    assert component("What shape is red?", "star", "circle", "cross", "square") == "shape"


def test_scenes_are_unique_and_not_in_training(tmp_path):
    def looks(count: int, taken=frozenset()) -> list:
        scenes = Bench("a", tmp_path, 0, 1, taken).scenes()
        return [frozenset(scene.items) for _, scene in itertools.islice(scenes, count)]

    every = looks(40)
    assert len(set(every)) == 40
    assert looks(20, frozenset(every[:20])) == every[20:]


@pytest.mark.slow
def test_the_command_adds_benchmarks_and_changes_nothing_else(root, make_world, tmp_path):
    """With --only-benchmarks and --only-tests, too: the same bytes."""
    command = [sys.executable, "-m", "playground.shapes.generate", "--seed", "3", "--scenes", "12"]
    command += ["--test-questions", "10", "--benchmarks", "6"]
    for out, more in (("all", []), ("only", ["--only-benchmarks"]), ("tests", ["--only-tests"])):
        flags = [*command, "--out", str(tmp_path / out), *more]
        subprocess.run(flags, cwd=root, check=True, env={"PYTHONHASHSEED": str(len(out))}, timeout=120)

    def files(folder: Path) -> dict:
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    everything, only, tests = (files(tmp_path / out) for out in ("all", "only", "tests"))
    plain = files(make_world(tmp_path / "plain").folder)
    assert {name: content for name, content in everything.items() if not name.startswith("eval/")} == plain
    assert {name: content for name, content in everything.items() if name.startswith("eval/")} == only
    to_train_on = ("captions.json", "conversations.json", "short.json", "texts.json", "images/train/")
    assert {name: content for name, content in everything.items() if not name.startswith(to_train_on)} == tests


@pytest.mark.parametrize(
    "flags", [["--benchmarks", "0"], ["--only-benchmarks"], ["--benchmarks", "1", "--only-benchmarks", "--only-tests"]]
)
def test_the_command_refuses_impossible_flags(flags, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["generate", "--out", str(tmp_path), *flags])
    with pytest.raises(SystemExit) as stopped:
        generate.main()
    assert stopped.value.code == 2 and "--benchmarks" in capsys.readouterr().err
