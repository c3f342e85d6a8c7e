"""Answers that a file already has: each goes to its question; those of another run, or of no run, are refused."""

import contextlib

import pytest
from fixtures.odd_values import VALUES, paths_of, with_value

from llava.errors import LlavaError, OptionError
from llava.eval.answering.questions import Question
from llava.eval.answering.resume import existing_answers
from llava.files.jsonl import RecordFile, lines_of

SETTINGS = {"checkpoint": "c", "seed": 1}
QUESTIONS = {0: Question(7, "a", "a", before={"type": 1}), 1: Question(8, "b", "b"), 2: Question(7, "a", "a")}


def answered(key, prompt, **more):
    return {"question_id": key, **more, "prompt": prompt, "text": "x", "metadata": {"settings": SETTINGS}}


ROWS = [answered(8, "b"), answered(7, "a"), answered(7, "a", type=1)]


def found(path, rows):
    path.write_text(lines_of(rows))
    return existing_answers(RecordFile(path), QUESTIONS, SETTINGS)


def test_answers_are_given_to_questions_of_the_same_fields(tmp_path):
    """Also where some questions have fields that others lack."""
    path = tmp_path / "a.jsonl"
    path.with_name("a.jsonl.part").write_text(lines_of(ROWS[1:]))
    assert existing_answers(RecordFile(path), QUESTIONS, SETTINGS) == {2: ROWS[1], 0: ROWS[2]}
    assert found(path, ROWS) == {1: ROWS[0], 2: ROWS[1], 0: ROWS[2]}


def test_answers_about_other_images_are_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(lines_of({**row, "metadata": {"settings": {**SETTINGS, "images": "1"}}} for row in ROWS))
    assert len(existing_answers(RecordFile(path), QUESTIONS, {**SETTINGS, "images": "1"})) == 3
    for settings in (SETTINGS, {**SETTINGS, "images": "2"}):
        with pytest.raises(OptionError, match="holds answers with another set of images; remove it"):
            existing_answers(RecordFile(path), QUESTIONS, settings)


def test_answers_of_earlier_releases_say_nothing_of_images_and_are_taken(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(lines_of(ROWS))
    assert len(existing_answers(RecordFile(path), QUESTIONS, {**SETTINGS, "images": "1"})) == 3
    with pytest.raises(OptionError, match="holds answers with another seed; remove it"):
        existing_answers(RecordFile(path), QUESTIONS, {**SETTINGS, "images": "1", "seed": 2})


@pytest.mark.parametrize("metadata", [None, {}, {"settings": None}, {"settings": ["seed"]}, ["settings"], "settings"])
def test_answers_without_settings_are_refused(tmp_path, metadata):
    with pytest.raises(OptionError, match="do not say which settings"):
        found(tmp_path / "a.jsonl", [{**ROWS[0], "metadata": metadata}, *ROWS[1:]])


def test_odd_values_in_an_answer_file_are_user_errors_or_another_answers_text(tmp_path):
    for at in paths_of("a.jsonl", ROWS):
        for value in VALUES:
            with contextlib.suppress(LlavaError):
                assert set(found(tmp_path / "a.jsonl", with_value(ROWS, at, value))) == {0, 1, 2}
