"""TextVQA: each annotation has one answer."""

import itertools
import json

import pytest

from llava.errors import DataError
from llava.eval.eval_textvqa import eval_single, main, predictions
from llava.files.jsonl import lines_of

PEOPLE = ["red"] * 10
REQUEST = "Answer the question using a single word or phrase."


def annotation(image, question):
    return {"image_id": image, "question": question, "answers": PEOPLE}


def result(image, question, text="red"):
    return {"question_id": image, "prompt": f"{question}\n{REQUEST}", "text": text}


SET = [annotation(image, question) for image, question in itertools.product(("a", "b"), ("What?", "Who?"))]
RUN = [result(own["image_id"], own["question"]) for own in SET]


def test_answers_in_any_order_are_matched_by_image_and_question():
    for order in itertools.permutations(RUN):
        assert len(predictions(SET, order)) == 4


@pytest.mark.parametrize("text", ["red", "blue"])
def test_answers_of_two_runs_are_refused(text):
    with pytest.raises(DataError, match="is it two runs in one file"):
        predictions(SET, [*RUN, *(result(own["image_id"], own["question"], text) for own in SET)])


def test_question_that_is_asked_twice_has_two_answers():
    twice = [*SET, annotation("a", "what?")]
    assert len(predictions(twice, [*RUN, result("a", "What?")])) == 5
    with pytest.raises(DataError, match="1 of 5 questions have no answer"):
        predictions(twice, RUN)
    with pytest.raises(DataError, match="two runs"):
        predictions(twice, [*RUN, result("a", "What?"), result("a", "What?")])


def test_missing_and_foreign_answers_are_refused():
    with pytest.raises(DataError, match="1 of 4 questions have no answer"):
        predictions(SET, RUN[1:])
    with pytest.raises(DataError, match="no question 'why"):
        predictions(SET, [*RUN, result("a", "Why?")])


def test_ids_that_are_numbers_in_one_file_and_texts_in_the_other_are_the_same():
    assert len(predictions([annotation(7, "What?")], [result("7", "What?")])) == 1


@pytest.mark.parametrize(
    ("name", "value"), [("answers", None), ("answers", [1] * 10), ("question", 5), ("image_id", 1.5)]
)
def test_annotation_with_a_field_of_another_type_is_named(name, value):
    with pytest.raises(DataError, match=f"question 4: '{name}'"):
        predictions([*SET[:3], {**SET[3], name: value}], RUN)


@pytest.fixture
def scored(tmp_path):
    """Annotations, an answer file, and a folder of two: half of one's answers are right, all of the others'."""
    (tmp_path / "set.json").write_text(json.dumps({"data": SET}))
    (tmp_path / "runs").mkdir()
    half = [{**own, "text": "red" if number % 2 else "blue"} for number, own in enumerate(RUN)]
    for name, rows in (("one.jsonl", half), ("runs/b.jsonl", RUN), ("runs/a.jsonl", RUN), ("runs/c.txt", RUN)):
        (tmp_path / name).write_text(lines_of(rows))
    return tmp_path


def test_eval_single_prints_upstreams_block_and_returns_the_scores(scored, capsys):
    assert eval_single(str(scored / "set.json"), str(scored / "one.jsonl")) == {"samples": 4, "accuracy": 50.0}
    assert capsys.readouterr().out == "one\nSamples: 4\nAccuracy: 50.00%\n\n"


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (["--result-file", "one.jsonl"], ["one"]),
        (["--result-dir", "runs"], ["a", "b"]),
        (["--result-dir", "runs", "--result-file", "one.jsonl"], ["one", "a", "b"]),
    ],
)
def test_file_is_scored_then_each_file_of_the_folder_once(scored, monkeypatch, capsys, flags, names):
    monkeypatch.chdir(scored)
    assert main(["--annotation-file", "set.json", *flags]) == 0
    blocks = capsys.readouterr().out.split("\n\n")
    assert [block.split("\n")[0] for block in blocks] == [*names, ""]


@pytest.mark.parametrize(
    "flags", [[], ["--result-dir", "none"], ["--result-file", "one.jsonl", "--result-dir", "none"]]
)
def test_nothing_to_score_is_refused(scored, monkeypatch, capsys, flags):
    monkeypatch.chdir(scored)
    assert main(["--annotation-file", "set.json", *flags]) == 2
    said = capsys.readouterr()
    assert "--result-dir a folder that holds some" in said.err and not said.out
