"""Scores and submissions, counted by hand."""

from __future__ import annotations

import json
import subprocess
import sys

import convert_seed_for_submission
import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.errors import DataError
from llava.eval import eval_gqa, eval_mmbench, eval_mme, eval_pope, eval_science_qa, eval_vqa
from llava.eval.eval_mme.ground_truth import read_truth
from llava.eval.eval_textvqa import prompt_processor
from llava.eval.m4c_evaluator import (
    CONTRACTIONS,
    EvalAIAnswerProcessor,
    STVQAAccuracyEvaluator,
    STVQAANLSEvaluator,
    TextVQAAccuracyEvaluator,
    edit_distance,
)
from llava.eval.scoring import submissions
from llava.files.jsonl import lines_of


def answers(**texts):
    return [{"question_id": key, "text": text} for key, text in texts.items()]


def test_pope_by_hand():
    texts = ["Yes", "yes", "Yes, a dog", "no", "No.", "It is not there"]
    scores = eval_pope.pope_scores(texts, ["yes", "yes", "no", "yes", "no", "no"])
    assert [scores[name] for name in ("TP", "FP", "TN", "FN")] == [2, 1, 2, 1]
    assert scores["accuracy"] == 4 / 6 and scores["precision"] == scores["recall"] == 2 / 3
    assert scores["f1"] == pytest.approx(2 / 3) and scores["yes_ratio"] == 0.5


def test_pope_refuses_unequal_lengths():
    with pytest.raises(DataError, match="2 answers, but 1 labels"):
        eval_pope.pope_scores(["yes", "no"], ["yes"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("wouldnt", "wouldn't"),
        ("couldn'tve", "couldn't've"),
        ("yall'd've", "y'all'd've"),
        ("oclock", "o'clock"),
        ("Twas", "'twas"),
        ("somebody'd", "somebodyd"),  # the published table's own slip
        ("shes", "shes"),
        ("lets", "lets"),
        ("An owl, the 3rd", "owl 3rd"),
        ("None of them", "0 of them"),
        ("1,000,000", "1000000"),
        ("(left) right", "left right"),
        ("left/right", "left right"),
        ("3.5", "3.5"),
        (".5. 6.", ".5 6"),
        ("." * 40, "." * 8),  # 32 of them go
    ],
)
def test_normalisation(text, expected):
    assert EvalAIAnswerProcessor()(text) == expected


@pytest.mark.parametrize(
    ("prompt", "question"),
    [
        ("OCR tokens: a\nb\nQuestion: What\nIs it? Short answer:", "what\nis it?"),
        ("OCR tokens: Question: Who? Short answer: Question: x Short answer:", "who?"),
        ("OCR tokens: a.Question: Who? Short answer:", "who?"),
    ],
)
def test_questions_in_old_textvqa_prompts(prompt, question):
    """Between the first mark and the next end, wherever lines break."""
    assert prompt_processor(prompt) == question


def test_every_contraction_is_its_word_without_an_apostrophe():
    slips = {"somebody'd": "somebodyd"}
    for short, word in CONTRACTIONS.items():
        same = short.replace("'", "") == word.replace("'", "") and len(short) + 1 == len(word)
        assert same or slips.get(short) == word


@given(st.lists(st.sampled_from(["red", "blue", "the red", "2", "two"]), min_size=10, max_size=10))
@settings(deadline=None)
def test_accuracy_is_the_mean_over_leaving_one_out(people):
    same = EvalAIAnswerProcessor()
    for answer in ("red", "two", "green"):
        score = TextVQAAccuracyEvaluator().eval_pred_list([{"pred_answer": answer, "gt_answers": people}])
        agree = sum(same(person) == same(answer) for person in people)
        # Leaving out one who agrees leaves agree - 1, and there are agree of these; else all agree.
        by_hand = (agree * min(1, (agree - 1) / 3) + (10 - agree) * min(1, agree / 3)) / 10 if agree else 0
        assert score == pytest.approx(by_hand)


def test_scene_text_scores():
    entries = [{"pred_answer": "Cat", "gt_answers": ["dog", "a cat"]}, {"pred_answer": "x", "gt_answers": ["y"]}]
    assert STVQAAccuracyEvaluator().eval_pred_list(entries) == 0.5
    assert edit_distance("kitten", "sitting") == 3 and edit_distance("", "abc") == 3
    anls = STVQAANLSEvaluator()
    assert anls.get_anls("kitten", "Kitten ") == 1 and anls.get_anls("kitten", "sitting") == pytest.approx(4 / 7)
    assert anls.get_anls("abcd", "axyz") == 0, "below one half nothing counts"
    pair = [{"pred_answer": "sitting", "gt_answers": ["kitten", "zzz"]}, {"pred_answer": "a", "gt_answers": ["b"]}]
    assert anls.eval_pred_list(pair) == pytest.approx(2 / 7)


@given(st.text("ab", max_size=6), st.text("ab", max_size=6))
@settings(deadline=None)
def test_edit_distance_is_the_recursive_one(one, other):
    def slow(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(slow(a[1:], b) + 1, slow(a, b[1:]) + 1, slow(a[1:], b[1:]) + (a[0] != b[0]))

    assert edit_distance(one, other) == slow(one, other)


def test_science_qa_by_hand():
    problems = {str(n): {"choices": ["x", "y"], "answer": n % 2} for n in range(4)}
    records = {
        "0": {"text": "A", "prompt": "<image>\nq"},
        "1": {"text": "A. x", "prompt": "<image>\nq"},
        "3": {"text": "The answer is B.", "prompt": "q"},
    }
    scores = eval_science_qa.science_scores(problems, records)
    assert (scores["correct"], scores["count"], scores["acc"], scores["image_acc"]) == (2, 4, 50.0, 50.0)
    assert scores["results"] == {"0": 0, "1": 0, "2": -1, "3": 1}
    assert eval_science_qa.science_scores(problems, {"3": records["3"]})["image_acc"] is None
    with pytest.raises(DataError, match="the first is 9"):
        eval_science_qa.science_scores(problems, {"9": records["0"]})


def test_mme_by_hand():
    lines = [
        ("a.png", "q", "Yes", "Yes"),
        ("a.png", "q", "No", "no, it is not"),
        ("b.png", "q", "Yes", "Yes."),
        ("b.png", "q", "No", "yes"),
        ("c.png", "q", "Yes", "maybe"),
        ("c.png", "q", "No", " No"),
    ]
    scores = eval_mme.mme_scores({"color": lines, "existence": lines[:2], "code_reasoning": lines[2:4]})
    color = scores["Perception"]["categories"]["color"]
    assert color["acc"] == pytest.approx(100 * 4 / 6) and color["acc_plus"] == pytest.approx(100 / 3)
    assert color["score"] == pytest.approx(100) and color["other"] == 1
    assert scores["Perception"]["total"] == pytest.approx(300)
    assert scores["Cognition"] == {"total": 50.0, "categories": scores["Cognition"]["categories"]}


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ({"colour": [("a", "q", "yes", "yes")] * 2}, "categories are .'colour'."),
        ({"color": [("a", "q", "yes", "yes")]}, "'a' has 1 questions"),
        ({"color": [("a", "q", "A", "yes")] * 2}, "'A'; expected yes or no"),
        ({}, "none"),
    ],
)
def test_mme_refuses(categories, message):
    with pytest.raises(DataError, match=message):
        eval_mme.mme_scores(categories)


def row(index: int, answer: str, **more):
    return {"index": str(index), "question": "q", "A": "x", "B": "y", "C": None, "D": None, "answer": answer, **more}


def test_mmbench_by_hand():
    rows = [row(1, "A", category="colour"), row(2, "B", category="shape")]

    def record(index, turn, text):
        letters = ["A", "B"] if turn == 0 else ["B", "A"]
        return {"question_id": index, "round_id": turn, "text": text, "option_char": letters}

    first = [record(1, 0, "A"), record(2, 0, "B. y")]
    assert eval_mmbench.mmbench_scores(rows, first) == {
        "questions": 2, "accuracy": 100.0, "circular_accuracy": None, "by_category": {"colour": 100.0, "shape": 100.0}
    }  # fmt: skip
    second = [record(1, 1, "B"), record(2, 1, "B")]  # the second round's B is option A
    scores = eval_mmbench.mmbench_scores(rows, first + second)
    assert scores["accuracy"] == 100 and scores["circular_accuracy"] == 50
    with pytest.raises(DataError, match="two answers in round 0"):
        eval_mmbench.mmbench_scores(rows, [*first, first[0]])
    with pytest.raises(DataError, match="lacks 1 of 2 answers: 2"):
        eval_mmbench.mmbench_scores(rows, first[:1])
    with pytest.raises(DataError, match="submit it"):
        eval_mmbench.mmbench_scores([row(1, None)], first[:1])


def test_mmbench_table_that_holds_rotations_counts_a_question_where_all_of_its_rows_are_right():
    """As in MMBench's files: row 1000241 asks 241 again, with its options, and so its answer, rotated by one."""
    truths = {"241": "ABCD", "7": "BA", "9": "C"}  # the answer's letter in each rotation of a question
    rows, right = [], []
    for index, letters in truths.items():
        for turn, letter in enumerate(letters):
            key = 1_000_000 * turn + int(index)
            rows.append(row(key, letter, C="z", D="w", category="colour" if index == "241" else "shape"))
            right.append({"question_id": key, "round_id": 0, "text": letter, "option_char": list("ABCD")})
    perfect = eval_mmbench.mmbench_scores(rows, right)
    assert (perfect["questions"], perfect["accuracy"], perfect["circular_accuracy"]) == (3, 100, 100)
    assert perfect["by_category"] == {"colour": 100, "shape": 100}
    slip = [{**one, "text": "D"} if one["question_id"] == 2_000_241 else one for one in right]
    scores = eval_mmbench.mmbench_scores(rows, slip)
    assert (scores["accuracy"], scores["circular_accuracy"]) == (100, pytest.approx(200 / 3))
    first = [{**one, "text": "D"} if one["question_id"] == 241 else one for one in right]
    scores = eval_mmbench.mmbench_scores(rows, first)
    assert scores["accuracy"] == scores["circular_accuracy"] == pytest.approx(200 / 3)
    assert scores["by_category"] == {"colour": 0, "shape": 100}
    again = [one for one in zip(rows, right, strict=True) if one[1]["question_id"] > 1_000_000]
    with pytest.raises(DataError, match="no questions with an index below 1,000,000"):
        eval_mmbench.mmbench_scores(*map(list, zip(*again, strict=True)))


@pytest.mark.parametrize("letter", ["a", " A", "E", "x"])
def test_truth_that_names_no_option_is_refused(letter):
    records = [{"question_id": 1, "round_id": 0, "text": "A", "option_char": ["A", "B"]}]
    with pytest.raises(DataError, match=r"the answer to 1 is .*; expected A, B, C or D"):
        eval_mmbench.mmbench_scores([row(1, letter)], records)
    question = {"question_id": "1", "question_type_id": 1, "data_type": "image", "answer": letter}
    with pytest.raises(DataError, match=r"question 1: 'answer' is .*; expected A, B, C or D"):
        submissions.seed_scores(answers(**{"1": "A"}), {"question_type": {"Scene": 1}, "questions": [question]})


def test_gqa_by_hand():
    questions = {
        "1": {"answer": "red", "types": {"structural": "query"}},
        "2": {"answer": "yes", "types": {"structural": "verify"}},
        "3": {"answer": "no", "types": {"structural": "verify"}},
    }
    predictions = submissions.gqa_predictions(answers(**{"1": "Red.", "2": "Yes", "3": "yes"}))
    assert predictions[0] == {"questionId": "1", "prediction": "red"}
    scores = eval_gqa.gqa_scores(questions, predictions)
    assert scores["accuracy"] == pytest.approx(200 / 3) and scores["by_structure"] == {"query": 100, "verify": 50}
    with pytest.raises(DataError, match="answers 4"):
        eval_gqa.gqa_scores(questions, [*predictions, {"questionId": "4", "prediction": "x"}])


def test_vqa_by_hand():
    def people(*given):
        return [{"answer": answer} for answer in given]

    annotations = [
        {"question_id": 1, "answer_type": "other", "answers": people(*["red"] * 10)},
        {"question_id": 2, "answer_type": "number", "answers": people("2", "2", *["3"] * 8)},
    ]
    results = submissions.vqav2_upload(
        [{"question_id": 1, "text": "The red"}, {"question_id": 2, "text": "two"}],
        [{"question_id": n} for n in (0, 1, 2)],
    )
    assert results == [{"question_id": 0, "answer": ""}, {"question_id": 1, "answer": "red"},
                       {"question_id": 2, "answer": "2"}]  # fmt: skip
    scores = eval_vqa.vqa_scores(annotations, results, "question_id")
    # Two of ten say 2: without one of these two, one agrees (1/3), without one of the eight, two do (2/3).
    assert scores["by_type"] == {"number": pytest.approx(100 * (2 * 1 / 3 + 8 * 2 / 3) / 10), "other": 100}
    with pytest.raises(DataError, match="answers 7"):
        submissions.vqav2_upload([{"question_id": 7, "text": "x"}], [{"question_id": 1}])


def test_vizwiz_mmvet_and_seed():
    questions = [{"question_id": 5, "image": "a.jpg"}, {"question_id": 6, "image": "b.jpg"}]
    given_ = [{"question_id": 6, "text": "A dog!"}, {"question_id": 5, "text": "Two"}]
    assert submissions.vizwiz_upload(given_, questions) == [
        {"image": "a.jpg", "answer": "2"},
        {"image": "b.jpg", "answer": "dog"},
    ]
    with pytest.raises(DataError, match="lacks 1 of 2"):
        submissions.vizwiz_upload(given_[:1], questions)
    assert submissions.mmvet_results(answers(x="Long.\nAnswer")) == {"v1_x": "Long.\nAnswer"}
    annotation = {
        "question_type": {"Scene": 1, "Action": 2},
        "questions": [
            {"question_id": "1", "question_type_id": 1, "data_type": "image", "answer": "A"},
            {"question_id": "2", "question_type_id": 1, "data_type": "image", "answer": "B"},
            {"question_id": "3", "question_type_id": 2, "data_type": "video", "answer": "C"},
        ],
    }
    scores = submissions.seed_scores(answers(**{"1": "A", "2": "Apple", "3": "C"}), annotation)
    assert scores["total"] == pytest.approx(200 / 3)
    assert scores["by_data"] == {"image": 50, "video": 100} and scores["by_type"] == {"Scene": 50, "Action": 100}
    spoken = submissions.seed_scores(answers(**{"1": "A.", "2": "(B)", "3": "C. walk"}), annotation)
    assert spoken["total"] == 0, "as upstream, only the letter alone is right"


def seed_bench(tmp_path, given):
    """Run the converter; return its exit code and its submission, None where there is none."""
    questions = [
        {"question_id": 7, "question_type_id": 1, "data_type": "image", "answer": "A"},
        {"question_id": 5, "question_type_id": 1, "data_type": "image", "answer": "B"},
        {"question_id": "v_1", "question_type_id": 2, "data_type": "video", "answer": "C"},
    ]
    annotation = {"question_type": {"Scene": 1, "Action": 2}, "questions": questions}
    (tmp_path / "bench.json").write_text(json.dumps(annotation))
    (tmp_path / "answers.jsonl").write_text(lines_of(given))
    files = {"annotation-file": "bench.json", "result-file": "answers.jsonl", "result-upload-file": "upload.jsonl"}
    flags = [part for name, file in files.items() for part in (f"--{name}", str(tmp_path / file))]
    upload = tmp_path / "upload.jsonl"
    code = convert_seed_for_submission.main(flags)
    return code, [json.loads(line) for line in upload.read_text().splitlines()] if upload.exists() else None


def test_seed_submission_has_the_annotations_ids_in_its_order(tmp_path, capsys):
    """An answer file's order is that of the question file, and a tool may have written its ids as texts."""
    code, upload = seed_bench(tmp_path, answers(**{"v_1": "C", "5": "A", "7": "A"}))
    printed = capsys.readouterr().out.splitlines()
    assert code == 0 and printed[:3] == ["Total accuracy: 66.67%", "image: 50.00%", "video: 100.00%"]
    assert upload == [
        {"question_id": 7, "prediction": "A"},
        {"question_id": 5, "prediction": "A"},
        {"question_id": "v_1", "prediction": "C"},
    ]


def test_seed_images_alone_are_scored_and_not_submitted(tmp_path, capsys):
    code, upload = seed_bench(tmp_path, answers(**{"5": "A", "7": "A"}))
    printed = capsys.readouterr()
    assert (code, upload, printed.out) == (2, None, "image: 50.00%\n")
    assert "lacks 1 of 3 answers: v_1" in printed.err
    seed_bench(tmp_path, answers(**{"5": "A"}))
    assert capsys.readouterr().out == "", "a part of the images has no score"


def test_mmbench_submission(root, tmp_path):
    table = tmp_path / "t.tsv"
    table.write_text("index\tquestion\thint\tA\tB\tC\tD\tcategory\timage\tsplit\n7\tq\th\tx\ty\t\t\tc\tdata\tdev\n")
    for turn, text in ((0, "B"), (1, "A")):
        with (tmp_path / "e.jsonl").open("a") as file:
            file.write(lines_of([{"question_id": 7, "round_id": turn, "text": text}]))
    command = [sys.executable, "scripts/convert_mmbench_for_submission.py", "--annotation-file", str(table)]
    flags = ["--result-dir", str(tmp_path), "--upload-dir", str(tmp_path / "up"), "--experiment", "e"]
    subprocess.run([*command, *flags], cwd=root, check=True)
    sheet = openpyxl.load_workbook(tmp_path / "up" / "e.xlsx").active
    assert list(sheet.values) == [
        ("index", "question", "A", "B", "C", "D", "prediction", "split"),
        (7, "q", "x", "y", None, None, "B", "dev"),
    ]


def test_mme_conversion(tmp_path):
    for name, question in (("existence", "Is there a cat?"), ("artwork", "Is this by X?")):
        inside = name == "artwork"
        images, texts = (tmp_path / name / part if inside else tmp_path / name for part in
                           ("images", "questions_answers_YN"))  # fmt: skip
        images.mkdir(parents=True, exist_ok=True)
        texts.mkdir(parents=True, exist_ok=True)
        (images / "1.jpg").touch()
        pairs = ((question, "Yes"), ("Really?", "No"))
        lines = [f"{asked}  {submissions.YES_NO}\t{answer}\n" for asked, answer in pairs]
        (texts / "1.txt").write_text("".join(lines))
    truth = read_truth(tmp_path)
    asked = [("existence/1.jpg", "Is there a cat?"), ("existence/1.jpg", "Really?"), ("artwork/1.jpg", "Is this by X?")]
    records = [
        {"question_id": key, "prompt": f"{q}\n{submissions.SHORT_PROMPT}", "text": "Yes\nit is"} for key, q in asked
    ]
    lines = submissions.mme_lines(records[:2], truth)
    assert lines == {
        "existence": [
            "1.jpg\tIs there a cat? Please answer yes or no.\tYes\tYes it is",
            "1.jpg\tReally? Please answer yes or no.\tNo\tYes it is",
        ]
    }
    with pytest.raises(DataError, match="1 questions of answered categories have no answer"):
        submissions.mme_lines(records, truth)
    with pytest.raises(DataError, match="answered twice"):
        submissions.mme_lines([*records[:2], records[0]], truth)


@pytest.mark.parametrize("fault", ["empty", "missing", "doubled", "strange", "lacking", "not json"])
def test_faulty_answer_files(tmp_path, capsys, fault):
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "coco_pope_random.json").write_text(lines_of([{"label": "yes"}, {"label": "no"}]))
    questions = [{"question_id": n, "category": "random"} for n in range(2)]
    given_ = [{"question_id": n, "text": "yes"} for n in range(2)]
    changed = {
        "empty": [],
        "doubled": [*given_, given_[0]],
        "strange": [*given_, {"question_id": 9, "text": "yes"}],
        "lacking": given_[:1],
    }
    (tmp_path / "q.jsonl").write_text(lines_of(questions))
    if fault != "missing":
        (tmp_path / "a.jsonl").write_text("{" if fault == "not json" else lines_of(changed.get(fault, given_)))
    flags = {"annotation-dir": "coco", "question-file": "q.jsonl", "result-file": "a.jsonl"}
    assert eval_pope.main([x for k, v in flags.items() for x in (f"--{k}", str(tmp_path / v))]) == 2
    said = capsys.readouterr()
    named = {"empty": "is empty", "missing": "cannot be read", "doubled": "question_id 0 twice", "strange": "answers 9",
             "lacking": "lacks 1 of 2 answers: 1", "not json": "line 1 is not JSON"}  # fmt: skip
    assert named[fault] in said.err and "a.jsonl" in said.err and not said.out


def test_no_scores_are_written_for_answers_that_do_not_match(tmp_path, capsys):
    (tmp_path / "problems.json").write_text(json.dumps({"1": {"choices": ["x"], "answer": 0}}))
    (tmp_path / "pid_splits.json").write_text(json.dumps({"test": ["1"]}))
    (tmp_path / "r.jsonl").write_text(lines_of([{"question_id": "2", "text": "A", "prompt": "q"}]))
    out = {"--output-file": tmp_path / "o.json", "--output-result": tmp_path / "s.json"}
    flags = {"--base-dir": tmp_path, "--result-file": tmp_path / "r.jsonl", **out}
    assert eval_science_qa.main([str(x) for pair in flags.items() for x in pair]) == 2
    assert "the first is 2" in capsys.readouterr().err and not any(path.exists() for path in out.values())
