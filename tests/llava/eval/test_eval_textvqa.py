"""TextVQA: each annotation has one answer."""

import itertools

import pytest

from llava.errors import DataError
from llava.eval.eval_textvqa import predictions

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
