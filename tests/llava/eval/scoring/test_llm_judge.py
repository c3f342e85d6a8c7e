"""The judges, against a local server that speaks OpenAI's protocol."""

from __future__ import annotations

import json

import pytest

from llava.eval import eval_gpt_review_bench, eval_mmvet, summarize_gpt_review
from llava.files.jsonl import lines_of


@pytest.fixture
def bench(tmp_path):
    """LLaVA-Bench of three questions; its flags."""
    categories = ("conv", "detail", "conv")
    files = {
        "question": [
            {"question_id": n, "image": f"{n}.png", "text": f"what {n}?", "category": component}
            for n, component in enumerate(categories)
        ],
        "context": [{"id": n, "image": f"{n}.png", "caption": ["a scene", f"number {n}"]} for n in range(3)],
        "reference": [{"question_id": n, "text": f"true {n}"} for n in range(3)],
        "answers": [{"question_id": n, "text": f"said {n}", "answer_id": f"a{n}"} for n in range(3)],
    }
    for name, rows in files.items():
        (tmp_path / f"{name}.jsonl").write_text(lines_of(rows))
    flags = ["--question", "question.jsonl", "--context", "context.jsonl", "--answer-list", "reference.jsonl",
             "answers.jsonl", "--output", "reviews.jsonl"]  # fmt: skip
    return [flag if flag.startswith("--") else str(tmp_path / flag) for flag in flags]


def test_reviews(judge, bench, tmp_path, capsys):
    judge.replies = ["8 4\nclear", 503, "maybe", "6, 6", "10 5"]
    assert eval_gpt_review_bench.main(bench) == 0
    reviews = [json.loads(line) for line in (tmp_path / "reviews.jsonl").read_text().splitlines()]
    assert [review["tuple"] for review in reviews] == [[8, 4], [6, 6], [10, 5]]
    assert [review["category"] for review in reviews] == ["llava_bench_conv", "llava_bench_detail", "llava_bench_conv"]
    assert reviews[0]["answer2_id"] == "a0" and reviews[0]["content"] == "8 4\nclear"
    path, key, body = judge.asked[0]
    assert (path, key, len(judge.asked)) == ("/v1/chat/completions", "Bearer key", 5)
    asked = body["messages"][1]["content"]
    indices = [
        asked.index(part) for part in ("[Context]\na scene\nnumber 0", "what 0?", "true 0", "said 0", "[System]")
    ]
    assert indices == sorted(indices)
    assert summarize_gpt_review.main(["-f", str(tmp_path / "reviews.jsonl")]) == 0
    lines = capsys.readouterr().out.splitlines()
    # All: references 8, 6, 10, models 4, 6, 5. Conversations: 18 and 9.
    assert lines[1] == "all 62.5 80.0 50.0" and "llava_bench_conv 50.0 90.0 45.0" in lines


def test_stopped_review_resumes(judge, bench, tmp_path, capsys):
    judge.replies = ["8 4", "who knows"]
    assert eval_gpt_review_bench.main(bench) == 2
    assert "no marks in 3 replies, the last is 'who knows'" in capsys.readouterr().err
    assert not (tmp_path / "reviews.jsonl").exists()
    judge.replies, judge.asked[:] = ["5 5"], []
    assert eval_gpt_review_bench.main(bench) == 0 and len(judge.asked) == 2
    reviews = [json.loads(line) for line in (tmp_path / "reviews.jsonl").read_text().splitlines()]
    assert [review["question_id"] for review in reviews] == [0, 1, 2] and reviews[0]["tuple"] == [8, 4]
    judge.asked.clear()
    assert eval_gpt_review_bench.main(bench) == 0 and not judge.asked, "all is judged"


def test_answers_of_another_set_are_not_judged(judge, bench, tmp_path, capsys):
    (tmp_path / "answers.jsonl").write_text(lines_of([{"question_id": 0, "text": "x"}]))
    assert eval_gpt_review_bench.main(bench) == 2
    assert "lacks 2 of 3 answers" in capsys.readouterr().err and not judge.asked
    assert not list(tmp_path.glob("reviews*"))


def test_refusal_of_the_judge_is_a_user_error(judge, bench, capsys):
    judge.replies = [401]
    assert eval_gpt_review_bench.main(bench) == 2
    assert "refuses: 401" in capsys.readouterr().err and len(judge.asked) == 1


def test_without_a_key_nothing_is_asked(bench, monkeypatch, capsys):
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert eval_gpt_review_bench.main(bench) == 2
    assert "OPENAI_API_KEY is not set" in capsys.readouterr().err


def test_marks_that_cannot_be_compared(tmp_path, capsys):
    reviews = tmp_path / "r.jsonl"
    for marks, message in (([-1, -1], "marks [-1, -1]"), ([0, 3], "are all 0")):
        reviews.write_text(lines_of([{"question_id": 1, "category": "c", "tuple": marks}]))
        assert summarize_gpt_review.main(["-f", str(reviews)]) == 2
        assert message in capsys.readouterr().err


def test_mmvet(judge, tmp_path, capsys):
    questions = {
        "v1_0": {"question": "what?", "answer": "a <AND> b", "capability": ["ocr", "spat"]},
        "v1_1": {"question": "who?", "answer": "c", "capability": ["ocr"]},
    }
    (tmp_path / "q.json").write_text(json.dumps(questions))
    (tmp_path / "r.json").write_text(json.dumps({"v1_0": "b", "v1_1": "c"}))
    flags = ["--questions", str(tmp_path / "q.json"), "--results", str(tmp_path / "r.json")]
    flags += ["--output", str(tmp_path / "g.jsonl")]
    judge.replies = ["0.5", "7", "1.0"]
    assert eval_mmvet.main(flags) == 0
    assert json.loads(capsys.readouterr().out) == {
        "questions": 2, "total": 75.0, "by_capability": {"ocr": 75.0, "spat": 50.0}
    }  # fmt: skip
    assert len(judge.asked) == 3 and "a <AND> b" in judge.asked[0][2]["messages"][1]["content"]
    (tmp_path / "r.json").write_text(json.dumps({"v1_0": "b", "v1_1": "other"}))
    assert eval_mmvet.main(flags) == 2 and "grades of other answers" in capsys.readouterr().err
