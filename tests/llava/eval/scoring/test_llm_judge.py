"""The judges, against a local server that speaks OpenAI's protocol."""

from __future__ import annotations

import json

import pytest

from llava.eval import eval_gpt_review_bench, eval_mmvet, summarize_gpt_review
from llava.eval.scoring import llm_judge
from llava.eval.scoring.reviews import RULES
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


@pytest.mark.parametrize("done", [1, 3])
def test_reviews_of_another_judge_or_rule_are_refused(judge, bench, tmp_path, capsys, done):
    judge.replies = ["8 4"] if done == 3 else ["8 4", 401]
    assert eval_gpt_review_bench.main(bench) == (0 if done == 3 else 2)
    judge.replies, judge.asked[:] = ["5 5"], []
    assert eval_gpt_review_bench.main([*bench, "--model", "other"]) == 2
    assert "reviews.jsonl holds marks of the judge 'gpt-4-0314', --model is 'other'" in capsys.readouterr().err
    rules = json.loads(RULES.read_text())
    changed = {kind: {**rule, "prompt": "Judge kindly."} for kind, rule in rules.items()}
    (tmp_path / "rule.json").write_text(json.dumps(changed))
    assert eval_gpt_review_bench.main([*bench, "--rule", str(tmp_path / "rule.json")]) == 2
    assert "given by other prompts, so by another rule" in capsys.readouterr().err
    (tmp_path / "context.jsonl").write_text((tmp_path / "context.jsonl").read_text().replace("scene", "field"))
    assert eval_gpt_review_bench.main(bench) == 2 and not judge.asked


def test_reviews_of_earlier_releases_are_taken(judge, bench, tmp_path):
    """They do not say who gave them, and by which prompt."""
    judge.replies = ["8 4"]
    assert eval_gpt_review_bench.main(bench) == 0
    reviews = [json.loads(line) for line in (tmp_path / "reviews.jsonl").read_text().splitlines()]
    old = [{name: value for name, value in one.items() if name not in ("judge", "prompt_hash")} for one in reviews]
    (tmp_path / "reviews.jsonl").rename(tmp_path / "reviews.jsonl.part")
    (tmp_path / "reviews.jsonl.part").write_text(lines_of(old[:2]))
    judge.asked.clear()
    assert eval_gpt_review_bench.main([*bench, "--model", "other"]) == 0 and len(judge.asked) == 1
    again = [json.loads(line) for line in (tmp_path / "reviews.jsonl").read_text().splitlines()]
    assert again[:2] == old[:2] and again[2] == {**reviews[2], "judge": "other"}


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
    (tmp_path / "r.json").write_text(json.dumps({"v1_0": "b", "v1_1": "c"}))
    assert eval_mmvet.main([*flags, "--model", "other"]) == 2
    assert "holds marks of the judge 'gpt-4-0314', --model is 'other'" in capsys.readouterr().err
    questions["v1_1"]["answer"] = "d"
    (tmp_path / "q.json").write_text(json.dumps(questions))
    assert eval_mmvet.main(flags) == 2 and "given by other prompts" in capsys.readouterr().err
    old = [json.loads(line) for line in (tmp_path / "g.jsonl").read_text().splitlines()]
    (tmp_path / "g.jsonl").write_text(lines_of({name: one[name] for name in list(one)[:3]} for one in old))
    assert eval_mmvet.main([*flags, "--model", "other"]) == 0, "grades of earlier releases do not say who gave them"


REPLIES = {
    "null": {"choices": [{"message": {"content": None}}]},
    "parts": {"choices": [{"message": {"content": [{"type": "text", "text": "8 6"}]}}]},
    "no content": {"choices": [{"message": {"role": "assistant", "refusal": "no"}}]},
    "no choices": {"choices": []},
    "null choices": {"choices": None},
    "choice of text": {"choices": ["8 6"]},
    "error": {"error": {"message": "overloaded"}},
    "list": [],
}


@pytest.mark.parametrize("body", REPLIES.values(), ids=REPLIES)
def test_reply_without_a_text_is_asked_for_again_and_named(judge, bench, tmp_path, capsys, body):
    judge.replies = [body]
    assert eval_gpt_review_bench.main(bench) == 2
    assert "no marks in 3 replies, the last is the reply of the server at" in capsys.readouterr().err
    assert len(judge.asked) == 3 and not (tmp_path / "reviews.jsonl").exists()
    judge.replies = [body, "8 6"]
    assert eval_gpt_review_bench.main(bench) == 0


@pytest.mark.parametrize("body", [b"<html>", b"", b"[" * 100_000, b"9" * 5000, b"\xff"], ids=repr)
def test_reply_that_is_no_json_is_a_user_error(judge, bench, capsys, body):
    judge.replies = [body]
    assert eval_gpt_review_bench.main(bench) == 2
    assert "gives no reply" in capsys.readouterr().err


@pytest.mark.parametrize("marks", ["8", "8 6 4", "nan 6", "inf inf", "-1 6", "eight six", ""])
def test_marks_that_are_none_are_not_taken(judge, bench, capsys, marks):
    judge.replies = [marks]
    assert eval_gpt_review_bench.main(bench) == 2
    assert "no marks in 3 replies" in capsys.readouterr().err


def test_server_that_does_not_answer_in_time_is_a_user_error(judge, bench, monkeypatch, capsys):
    monkeypatch.setattr(llm_judge, "TIMEOUT_S", 0.01)
    monkeypatch.setattr(llm_judge, "MAX_TRIES", 0)
    judge.replies = [0.5]  # seconds until it would answer
    assert eval_gpt_review_bench.main(bench) == 2
    assert "gives no reply" in capsys.readouterr().err


@pytest.mark.parametrize("status", [500, 503, 429])
def test_status_that_stays_is_a_user_error(judge, bench, monkeypatch, capsys, status):
    monkeypatch.setattr(llm_judge, "MAX_TRIES", 1)
    judge.replies = [status]
    assert eval_gpt_review_bench.main(bench) == 2
    assert f"too many {status}" in capsys.readouterr().err and len(judge.asked) == 2


@pytest.mark.parametrize(
    ("name", "value"), [("OPENAI_BASE_URL", "http://[::1"), ("OPENAI_BASE_URL", "nowhere"), ("OPENAI_API_KEY", "ключ")]
)
def test_unusable_address_or_key_is_a_user_error(judge, bench, monkeypatch, capsys, name, value):
    monkeypatch.setenv(name, value)
    judge.replies = ["8 6"]
    assert eval_gpt_review_bench.main(bench) == 2
    assert "gives no reply" in capsys.readouterr().err


def test_summary_leaves_out_ignored_questions_and_joins_folder_and_files(tmp_path, capsys):
    rows = [{"question_id": n, "category": "c", "tuple": [8, mark]} for n, mark in enumerate((4, 8))]
    (tmp_path / "gpt4_text_run.jsonl").write_text(lines_of(rows))
    flags = ["-d", str(tmp_path), "-f", "gpt4_text_run.jsonl"]
    assert summarize_gpt_review.main([*flags, "-i", "0"]) == 0
    assert capsys.readouterr().out.splitlines()[:3] == ["run", "all 100.0 80.0 80.0", "c 100.0 80.0 80.0"]
    assert summarize_gpt_review.main(flags) == 0
    assert capsys.readouterr().out.splitlines()[1] == "all 75.0 80.0 60.0"
    (tmp_path / "gpt4_text_run.jsonl").write_text(lines_of([{"question_id": 1, "score": [3, 2]}]))
    assert summarize_gpt_review.main(flags) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["all 66.7 30.0 20.0", "================================="]


@pytest.mark.parametrize("second", [1, "1"])
def test_summary_of_two_runs_in_one_file_is_refused(tmp_path, capsys, second):
    rows = [{"question_id": 1, "tuple": [8, 4]}, {"question_id": second, "tuple": [8, 8]}]
    (tmp_path / "r.jsonl").write_text(lines_of(rows))
    assert summarize_gpt_review.main(["-f", str(tmp_path / "r.jsonl")]) == 2
    assert "the reviews holds question_id" in capsys.readouterr().err


def test_summary_of_reviews_that_are_all_ignored_is_refused(tmp_path, capsys):
    (tmp_path / "r.jsonl").write_text(lines_of([{"question_id": 1, "tuple": [8, 4]}]))
    assert summarize_gpt_review.main(["-f", str(tmp_path / "r.jsonl"), "-i", "1"]) == 2
    assert "--ignore names all of them" in capsys.readouterr().err


def test_grades_of_ids_that_are_numbers_or_texts_and_of_a_null_capability(judge, tmp_path, capsys):
    (tmp_path / "q.json").write_text(json.dumps({"v1_0": {"question": "q", "answer": "a", "capability": None}}))
    (tmp_path / "r.json").write_text(json.dumps({"v1_0": "b"}))
    flags = [x for n in ("questions", "results") for x in (f"--{n}", str(tmp_path / f"{n[0]}.json"))]
    judge.replies = ["1.0"]
    assert eval_mmvet.main([*flags, "--output", str(tmp_path / "g.jsonl")]) == 2
    assert "'capability' is None; expected a list" in capsys.readouterr().err
    assert not judge.asked, "no grade is paid for before the files are checked"
