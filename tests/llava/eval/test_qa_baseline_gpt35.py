"""Answers of a model at a server, resumed where they were stopped."""

import json

import pytest

from llava.eval import qa_baseline_gpt35
from llava.files.jsonl import lines_of


@pytest.fixture
def flags(tmp_path):
    (tmp_path / "q.jsonl").write_text(lines_of({"question_id": n, "text": f"what {n}?"} for n in (10, 9, 2)))
    return ["-q", str(tmp_path / "q.jsonl"), "-o", str(tmp_path / "a.jsonl"), "--max-tokens", "5"]


def rows(folder):
    return [json.loads(line) for line in (folder / "a.jsonl").read_text().splitlines()]


def test_answers_are_in_the_order_of_ids(judge, flags, tmp_path):
    judge.replies = ["said"]
    assert qa_baseline_gpt35.main(flags) == 0
    assert [row["question_id"] for row in rows(tmp_path)] == [2, 9, 10]
    assert {(row["model_id"], row["text"]) for row in rows(tmp_path)} == {("gpt-3.5-turbo:20230327", "said")}
    assert list(rows(tmp_path)[0]) == ["answer_id", "question_id", "model_id", "text"]
    assert len({row["answer_id"] for row in rows(tmp_path)}) == 3
    body = judge.asked[0][2]
    assert (body["model"], body["max_tokens"], "temperature" in body) == ("gpt-3.5-turbo", 5, False)
    assert body["messages"][0]["content"] == "You are a helpful assistant."
    assert {b["messages"][1]["content"] for _, _, b in judge.asked} == {"what 2?", "what 9?", "what 10?"}


def test_stopped_run_asks_only_what_is_left(judge, flags, tmp_path, capsys):
    judge.replies = ["said", 400]
    assert qa_baseline_gpt35.main(flags) == 2 and "refuses: 400" in capsys.readouterr().err
    assert not (tmp_path / "a.jsonl").exists()
    kept = len((tmp_path / "a.jsonl.part").read_text().splitlines()) if (tmp_path / "a.jsonl.part").exists() else 0
    judge.replies, judge.asked[:] = ["said"], []
    assert qa_baseline_gpt35.main(flags) == 0 and len(judge.asked) == 3 - kept and len(rows(tmp_path)) == 3
    judge.asked.clear()
    assert qa_baseline_gpt35.main(flags) == 0 and not judge.asked
    assert qa_baseline_gpt35.main([*flags, "--model", "other"]) == 2
    assert "answers to other questions" in capsys.readouterr().err


def test_one_answer_is_a_record(judge):
    judge.replies = ["said"]
    record = qa_baseline_gpt35.get_answer(7, "what?", 3)
    assert record == {**record, "question_id": 7, "model_id": qa_baseline_gpt35.MODEL_ID, "text": "said"}
