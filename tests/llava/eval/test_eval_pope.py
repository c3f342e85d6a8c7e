"""POPE's program: answers in any order, labels that are none, and labels of other questions."""

from __future__ import annotations

import random

import pytest

from llava.errors import DataError
from llava.eval import eval_pope
from llava.eval.scoring.pope_labels import labels_of
from llava.files.jsonl import lines_of, read_records

TRUTHS = ["yes", "no", "yes", "no", "no", "yes"]


@pytest.fixture
def world(tmp_path):
    """``world(labels=..., answers=...)`` writes POPE's files of six questions and returns the program's flags."""

    def write(labels=None, answers=None, questions=None):
        (tmp_path / "coco").mkdir(exist_ok=True)
        asked = [{"question_id": n, "image": f"{n // 2}.png", "text": f"Is there {n}?\nAnswer.", "category": "random"}
                 for n in range(6)]  # fmt: skip
        known = [{"question_id": n + 1, "image": f"{n // 2}.png", "text": f"Is there {n}?", "label": truth}
                 for n, truth in enumerate(TRUTHS)]  # fmt: skip
        given = [{"question_id": n, "text": truth.title()} for n, truth in enumerate(TRUTHS)]
        (tmp_path / "coco" / "coco_pope_random.json").write_text(lines_of(labels(known) if labels else known))
        (tmp_path / "q.jsonl").write_text(lines_of(questions(asked) if questions else asked))
        (tmp_path / "a.jsonl").write_text(lines_of(answers(given) if answers else given))
        return tmp_path / "coco", tmp_path / "q.jsonl", tmp_path / "a.jsonl"

    return write


def without(name):
    return lambda rows: [{key: value for key, value in row.items() if key != name} for row in rows]


def with_label(label):
    return lambda rows: [*rows[:2], {**rows[2], "label": label}, *rows[3:]]


@pytest.mark.parametrize("seed", range(4))
def test_right_answers_in_any_order_are_all_right(world, seed):
    shuffled = lambda rows: random.Random(seed).sample(rows, len(rows))  # noqa: E731
    assert eval_pope.score(*world(answers=shuffled))["random"]["accuracy"] == 1.0


@pytest.mark.parametrize("seed", range(4))
def test_labels_in_any_order_are_found_by_image_and_text(world, seed):
    shuffled = lambda rows: random.Random(seed).sample(rows, len(rows))  # noqa: E731
    assert eval_pope.score(*world(labels=shuffled))["random"]["accuracy"] == 1.0


def test_ids_that_are_numbers_in_one_file_and_texts_in_the_other_are_the_same(world):
    texts = lambda rows: [{**row, "question_id": str(row["question_id"])} for row in rows]  # noqa: E731
    assert eval_pope.score(*world(answers=texts))["random"]["accuracy"] == 1.0


@pytest.mark.parametrize("label", [None, "", "No", "NO", "Yes", " no", "n", 0, False, ["no"]])
def test_label_other_than_yes_and_no_is_refused(world, label):
    with pytest.raises(DataError, match=r"coco_pope_random\.json, line 3: 'label' is "):
        eval_pope.score(*world(labels=with_label(label)))


def test_label_file_without_labels_is_refused(world):
    """Such as the question file, copied there."""
    with pytest.raises(DataError, match="line 1 lacks 'label'"):
        eval_pope.score(*world(labels=without("label")))


@pytest.mark.parametrize("image", ["9.png", "0.png", ""])
def test_labels_of_other_images_are_refused(world, image):
    """Here in other words, so that they are taken by position."""
    with pytest.raises(DataError, match=r"line 3 is not about .* is it another set"):
        eval_pope.score(*world(labels=lambda rows: [*rows[:2], {**rows[2], "image": image, "text": "?"}, *rows[3:]]))


def test_labels_by_position_are_refused_where_a_text_is_another_questions(tmp_path):
    asked = [{"question_id": n, "image": "a", "text": text} for n, text in enumerate(("cat?", "dog?", "owl?"))]
    known = [{"image": "a", "text": text, "label": "yes"} for text in ("dog?", "cat?", "owls?")]
    (tmp_path / "l.json").write_text(lines_of(known))
    with pytest.raises(DataError, match="line 1 is not about the category's question"):
        labels_of(asked, tmp_path / "l.json")


@pytest.mark.parametrize("fields", [without("image"), without("text"), without("question_id")])
def test_labels_without_image_or_text_are_by_position(world, fields):
    assert eval_pope.score(*world(labels=fields))["random"]["accuracy"] == 1.0


def test_category_without_labels_is_refused(world):
    other = lambda rows: [*rows, {**rows[0], "question_id": 6, "category": "popular"}]  # noqa: E731
    extra = lambda rows: [*rows, {"question_id": 6, "text": "Yes"}]  # noqa: E731
    with pytest.raises(DataError, match=r"holds no coco_pope_popular\.json"):
        eval_pope.score(*world(questions=other, answers=extra))


def test_question_without_a_category_is_refused(world):
    with pytest.raises(DataError, match="question 0 lacks 'category'"):
        eval_pope.score(*world(questions=without("category")))


@pytest.mark.parametrize("text", [None, 7, ["yes"]])
def test_answer_without_a_text_is_refused(world, text):
    with pytest.raises(DataError, match="the answer to 0: 'text' is"):
        eval_pope.score(*world(answers=lambda rows: [{**rows[0], "text": text}, *rows[1:]]))


def test_two_runs_in_one_file_are_refused(world):
    with pytest.raises(DataError, match="question_id 0 twice"):
        eval_pope.score(*world(answers=lambda rows: rows * 2))
    with pytest.raises(DataError, match="twice"):
        eval_pope.score(*world(answers=lambda rows: [*rows, {**rows[0], "question_id": "0"}]))


BLOCK = f"""TP\tFP\tTN\tFN\t
2\t1\t2\t1
Accuracy: {2 / 3}
Precision: {2 / 3}
Recall: {2 / 3}
F1 score: {2 / 3}
Yes ratio: 0.5
0.667, 0.667, 0.667, 0.667, 0.500
"""


def test_eval_pope_prints_upstreams_block_and_the_program_prints_it_once(world, capsys):
    wrong = lambda rows: [{**row, "text": "Yes" if n in (0, 1, 2) else "No"} for n, row in enumerate(rows)]  # noqa: E731
    folder, questions, answers = world(answers=wrong)
    given = read_records(answers, "--result-file")
    scores = eval_pope.eval_pope(given, str(folder / "coco_pope_random.json"))
    assert capsys.readouterr().out == BLOCK and scores == eval_pope.score(folder, questions, answers)["random"]
    flags = ["--annotation-dir", folder, "--question-file", questions, "--result-file", answers]
    assert eval_pope.main(list(map(str, flags))) == 0
    printed = capsys.readouterr().out
    assert printed == f"Category: random, # samples: 6\n{BLOCK}{'=' * 36}\n"
