"""Reviews of questions without images, and of COCO's images by captions and boxes."""

from __future__ import annotations

import hashlib
import json

import pytest

from llava.eval import eval_gpt_review, eval_gpt_review_bench, eval_gpt_review_visual
from llava.eval.scoring.reviews import RULES
from llava.files.jsonl import lines_of

RULE = {"math": {"role": "Solver", "prompt": "Judge."}, "default": {"role": "Assistant", "prompt": "Compare."},
        "conv": {"role": "Assistant", "prompt": "Look."}}  # fmt: skip


@pytest.fixture
def flags(tmp_path):
    """Three questions with two answers each, not in the questions' order; the flags that name them."""
    kinds = ("math", "writing", "conv")
    files = {
        "question": [{"question_id": n, "image": f"{n}.png", "text": f"what {n}?", "category": kind}
                     for n, kind in enumerate(kinds)],
        "one": [{"question_id": n, "text": f"one {n}", "answer_id": f"a{n}"} for n in (2, 0, 1)],
        "two": [{"question_id": n, "text": f"two {n}", "answer_id": f"b{n}"} for n in (1, 2, 0)],
        "context": [{"image": f"{n}.png", "captions": ["a cat", f"number {n}"],
                     "instances": [{"category": "cat", "bbox": [0.1, 0.25, 1, 0.5]}]} for n in range(3)],
    }  # fmt: skip
    for name, rows in files.items():
        (tmp_path / f"{name}.jsonl").write_text(lines_of(rows))
    (tmp_path / "rule.json").write_text(json.dumps(RULE))
    names = "-q question.jsonl -a one.jsonl two.jsonl -r rule.json -o reviews.jsonl".split()
    return [name if name.startswith("-") else str(tmp_path / name) for name in names]


def reviews(folder):
    return [json.loads(line) for line in (folder / "reviews.jsonl").read_text().splitlines()]


def test_review_has_upstreams_prompt_and_record(judge, flags, tmp_path):
    judge.replies = ["8 6\nbetter", "7 7", "1 10"]
    assert eval_gpt_review.main([*flags, "--max-tokens", "99"]) == 0
    record = {"id": 1, "question_id": 0, "answer1_id": "a0", "answer2_id": "b0", "category": "math",
              "content": "8 6\nbetter", "tuple": [8.0, 6.0]}  # fmt: skip
    prompt_hash = reviews(tmp_path)[0]["prompt_hash"]
    assert reviews(tmp_path)[0] == {**record, "judge": "gpt-4", "prompt_hash": prompt_hash}
    assert [row["category"] for row in reviews(tmp_path)] == ["math", "writing", "conv"]
    bodies = [body for _, _, body in judge.asked]
    assert (bodies[0]["model"], bodies[0]["max_tokens"], bodies[0]["temperature"]) == ("gpt-4", 99, 0.2)
    system, user = (message["content"] for message in bodies[0]["messages"])
    assert system == "You are a helpful and precise assistant for checking the quality of the answer."
    assert user == (
        "[Question]\nwhat 0?\n\n[Solver 1]\none 0\n\n[End of Solver 1]\n\n[Solver 2]\ntwo 0\n\n[End of Solver 2]\n\n"
        "[System]\nJudge.\n\n"
    )
    assert prompt_hash == hashlib.sha256(f"{system}\n{user}".encode()).hexdigest()[:16]
    assert bodies[1]["messages"][1]["content"].endswith("[System]\nCompare.\n\n"), "a category without a rule"


def test_visual_review_begins_with_captions_and_boxes(judge, flags, tmp_path):
    rows = [json.loads(line) for line in (tmp_path / "question.jsonl").read_text().splitlines()]
    (tmp_path / "question.jsonl").write_text(lines_of({**row, "category": "conv"} for row in rows))
    judge.replies = ["8 6"]
    assert eval_gpt_review_visual.main([*flags, "-c", str(tmp_path / "context.jsonl")]) == 0
    user = judge.asked[1][2]["messages"][1]["content"]
    assert user.startswith(
        "[Context]\na cat\nnumber 1\n\ncat: [0.1, 0.25, 1, 0.5]\n\n[Question]\nwhat 1?\n\n[Assistant 1]\none 1\n\n"
    )
    assert len(reviews(tmp_path)) == 3 and judge.asked[0][2]["model"] == "gpt-4-0314"


def test_visual_review_of_a_category_without_a_rule_is_refused(judge, flags, tmp_path, capsys):
    assert eval_gpt_review_visual.main([*flags, "-c", str(tmp_path / "context.jsonl")]) == 2
    assert "there is no rule for 'writing'" in capsys.readouterr().err and not judge.asked


@pytest.mark.parametrize("program", [eval_gpt_review, eval_gpt_review_bench, eval_gpt_review_visual])
def test_names_that_research_code_imports(judge, program):
    judge.replies = ["9 8\nfine"]
    assert program.get_eval("which?", 7) == "9 8\nfine"
    assert judge.asked[0][2]["max_tokens"] == 7 and judge.asked[0][2]["messages"][1]["content"] == "which?"
    assert program.parse_score("9, 8\nfine") == [9, 8] and program.parse_score("none") == [-1, -1]
    assert program.NUM_SECONDS_TO_SLEEP > 0


def test_every_category_of_upstreams_question_files_has_a_rule():
    rules = json.loads(RULES.read_text())
    kinds = {"conv", "detail", "complex"}
    assert {*kinds, *(f"llava_bench_{kind}" for kind in kinds), "default", "coding", "math"} == set(rules)
    assert all(set(rule) == {"role", "prompt"} for rule in rules.values())
