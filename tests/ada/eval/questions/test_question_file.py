"""Question files that cannot be used are refused with the line and what it lacks."""

from __future__ import annotations

import pytest

from ada.eval.questions.question_file import read_question_file
from llava.errors import LlavaError


def test_read_question_file_has_a_kind_and_a_truth_for_each_question(quiz):
    questions = read_question_file(quiz / "questions.jsonl", quiz / "images")
    assert questions.name == "questions" and questions.kinds == ["known", "unknown"] and len(questions.items) == 12
    first = questions.items[0]
    assert first.is_right(f" {first.truth.upper()}.") and not first.is_right(first.truth + " w1")
    assert first.question.open_image().size == (16, 16)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda lines: [], "is empty"),
        (lambda lines: [*lines, "{"], "line 13 is not JSON"),
        (lambda lines: [*lines, '{"question_id": 99, "text": "a"}'], "line 13 lacks image, category, answer"),
        (lambda lines: [*lines, "[]"], r"line 13 is '\[\]'; expected a JSON object"),
        (lambda lines: [*lines, lines[0]], "13 questions, but only 12 different question_ids"),
        (lambda lines: [lines[0].replace("0.png", "lost.png"), *lines[1:]], "1 of 12 images are not in .*lost.png"),
    ],
)
def test_read_question_file_refuses_bad_lines(spoil, message, quiz, tmp_path):
    path = tmp_path / "spoilt.jsonl"
    path.write_text("\n".join(spoil((quiz / "questions.jsonl").read_text().splitlines())))
    with pytest.raises(LlavaError, match=message):
        read_question_file(path, quiz / "images")
