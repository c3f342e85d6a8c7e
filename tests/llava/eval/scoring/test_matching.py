"""Ids are numbers in some files and texts in others; a missing, a second or a foreign one is refused everywhere."""

from __future__ import annotations

import openpyxl
import pytest

from llava.errors import DataError
from llava.eval import eval_gqa, eval_mmbench, eval_science_qa, eval_vqa
from llava.eval.scoring import submissions
from llava.eval.scoring.matching import by_id, check_same
from llava.files.jsonl import lines_of


def test_ids_that_are_equal_as_texts_are_the_same():
    assert list(by_id([{"id": 1}, {"id": "b"}], "id", "x")) == ["1", "b"]
    with pytest.raises(DataError, match="x holds id '1' twice; is it two runs in one file"):
        by_id([{"id": 1}, {"id": "1"}], "id", "x")


@pytest.mark.parametrize("records", [None, 7, "text", [7], [None], {"id": 1}])
def test_what_is_no_list_of_records_is_refused(records):
    with pytest.raises(DataError, match=r"^the file"):
        by_id(records, "id", "the file")


def test_long_ids_are_cut_in_messages():
    with pytest.raises(DataError) as raised:
        check_same({"n" * 500}, set(), "the file")
    assert len(str(raised.value)) < 200


def both(make):
    """A function's result with ids that are numbers, and with the same as texts."""
    return make(int), make(str)


def test_vqav2_and_vizwiz_keep_the_ids_of_the_questions():
    split = [{"question_id": n} for n in (1, 2)]
    uploads = both(lambda kind: submissions.vqav2_upload([{"question_id": kind(2), "text": "Two"}], split))
    assert uploads[0] == uploads[1] == [{"question_id": 1, "answer": ""}, {"question_id": 2, "answer": "2"}]
    asked = [{"question_id": 5, "image": "a.jpg"}]
    uploads = both(lambda kind: submissions.vizwiz_upload([{"question_id": kind(5), "text": "A dog"}], asked))
    assert uploads[0] == uploads[1] == [{"image": "a.jpg", "answer": "dog"}]


def test_test_split_with_a_question_twice_is_refused():
    with pytest.raises(DataError, match="the test split holds question_id '1' twice"):
        submissions.vqav2_upload([], [{"question_id": 1}, {"question_id": "1"}])


def test_scores_do_not_depend_on_the_type_of_ids():
    people = [{"answer": "red"}] * 10
    scores = both(lambda kind: eval_vqa.vqa_scores(
        [{"question_id": 1, "answers": people}], [{"question_id": kind(1), "answer": "red"}], "question_id"
    ))  # fmt: skip
    assert scores[0] == scores[1] and scores[0]["accuracy"] == 100
    questions = {"1": {"answer": "red", "types": {"structural": "query"}}}
    scores = both(lambda kind: eval_gqa.gqa_scores(questions, [{"questionId": kind(1), "prediction": "red"}]))
    assert scores[0] == scores[1] and scores[0]["accuracy"] == 100
    annotation = {
        "question_type": {"Scene": 1},
        "questions": [{"question_id": "1", "question_type_id": 1, "data_type": "image", "answer": "A"}],
    }
    scores = both(lambda kind: submissions.seed_scores([{"question_id": kind(1), "text": "A"}], annotation))
    assert scores[0] == scores[1] and scores[0]["total"] == 100
    problems = {"1": {"choices": ["x", "y"], "answer": 1}}
    given = both(lambda kind: by_id([{"question_id": kind(1), "text": "B", "prompt": "q"}], "question_id", "x"))
    scores = [eval_science_qa.science_scores(problems, answers) for answers in given]
    assert scores[0] == scores[1] and scores[0]["acc"] == 100


ROWS = [{"index": str(n), "question": "q", "A": "x", "B": "y", "C": None, "D": None, "answer": "A"} for n in (1, 2)]


def rounds(*turns):
    return [{"question_id": n, "round_id": turn, "text": "A", "option_char": ["A", "B"]} for n, turn in turns]


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([(1, 0), (2, 1)], r"question 2 has answers in the rounds \[1\]"),
        ([(1, 0), (1, 1), (2, 0)], "question 2 has answers in the rounds"),
        ([(1, 0), (1, 2), (2, 0), (2, 1)], r"rounds \[0, 2\]; expected all from 0 to 1"),
        ([(1, 0), (2, 0), (2, 0)], "question 2 has two answers in round 0"),
    ],
)
def test_mmbench_with_rounds_missing_or_twice_is_refused(turns, message):
    with pytest.raises(DataError, match=message):
        eval_mmbench.mmbench_scores(ROWS, rounds(*turns))


@pytest.mark.parametrize("name", ["round_id", "option_char", "text", "question_id"])
def test_mmbench_answer_without_a_field_is_refused(name):
    answers = [{key: value for key, value in row.items() if key != name} for row in rounds((1, 0), (2, 0))]
    with pytest.raises(DataError, match=name):
        eval_mmbench.mmbench_scores(ROWS, answers)


@pytest.mark.parametrize("index", ["²", "-1", "1.0", "", "9" * 5000, "NA"])
def test_mmbench_index_that_is_no_integer_is_refused(tmp_path, index):
    (tmp_path / "t.tsv").write_text(f"index\tquestion\tA\tB\tC\tD\n{index}\tq\tx\ty\t\t\n")
    with pytest.raises(DataError, match=r"line 2: index is .* expected an integer"):
        eval_mmbench.read_table(tmp_path / "t.tsv", "--annotation-file")


def test_mmbench_table_with_an_index_twice_is_refused(tmp_path):
    (tmp_path / "t.tsv").write_text(
        "index\tquestion\tA\tB\tC\tD\n" + "".join(f"{n}\tq\tx\ty\t\t\n" for n in ("7", "07"))
    )
    with pytest.raises(DataError, match="holds index '7' twice"):
        eval_mmbench.read_table(tmp_path / "t.tsv", "--annotation-file")


def test_mmbench_answers_are_cells_of_text(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend("scripts")
    from convert_mmbench_for_submission import main

    (tmp_path / "t.tsv").write_text("index\tquestion\tA\tB\tC\tD\n1\tq\tx\ty\t\t\n2\tq\tx\ty\t\t\n")
    texts = ["=1+1", "a\0b\x08c"]
    answers = [{"question_id": n, "round_id": 0, "text": text} for n, text in enumerate(texts, 1)]
    (tmp_path / "e.jsonl").write_text(lines_of(answers))
    flags = ["--annotation-file", str(tmp_path / "t.tsv"), "--result-dir", str(tmp_path)]
    assert main([*flags, "--upload-dir", str(tmp_path), "--experiment", "e"]) == 0
    sheet = openpyxl.load_workbook(tmp_path / "e.xlsx").active
    assert [(row[-1].value, row[-1].data_type) for row in list(sheet)[1:]] == [("=1+1", "s"), ("abc", "s")]
