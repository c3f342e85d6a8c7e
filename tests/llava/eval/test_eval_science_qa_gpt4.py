"""ScienceQA with GPT-4's answers next to ours: counted by hand, and by a slow obvious version with guesses."""

from __future__ import annotations

import json
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.errors import DataError
from llava.eval import eval_science_qa, eval_science_qa_gpt4, eval_science_qa_gpt4_requery
from llava.eval.scoring.stated_answers import ProblemAnswers
from llava.files.jsonl import lines_of

TEXTS = ["The answer is A.", "The answer is B.", "The answer is D.", "A", "The answer is A. The answer is B."]
CHOICES = ["x", "y", "z"]


def problem(key, truth, ours, gpt4):
    return ProblemAnswers(key, CHOICES, truth, {"text": ours, "prompt": "q"}, gpt4)


def slow(problems, again, seed):
    """The two programs' counts, with a guess for every answer that names no choice, in the order ours, GPT-4, again."""
    random.seed(seed)

    def read(text):
        letters = re.findall("The answer is ([A-Z]).", text)
        letter = letters[0] if len(letters) == 1 else None
        return letter, "ABC".index(letter) if letter in ("A", "B", "C") else random.choice(range(3))

    counts = dict.fromkeys(("ours", "gpt4", "failed", "ensemble", "upper", "upper2", "requery"), 0)
    for own in problems:
        (_, ours), (letter, gpt4) = read(own.ours["text"]), read(own.gpt4)
        answer = ours if letter is None else gpt4
        counts["ours"] += ours == own.truth
        counts["gpt4"] += gpt4 == own.truth
        counts["failed"] += letter is None
        counts["ensemble"] += answer == own.truth
        counts["upper"] += own.truth in (ours, answer)
        counts["upper2"] += own.truth in (ours, gpt4)
        if again is not None:
            name, index = read(again[own.key]["text"] if own.key in again else "MISSING")
            counts["requery"] += (ours if name is None else index) == own.truth
    return counts


PROBLEMS = st.lists(st.tuples(st.integers(0, 2), *[st.sampled_from(TEXTS)] * 3, st.booleans()), max_size=6)


@given(PROBLEMS, st.integers(0, 5))
def test_counts_are_those_of_the_obvious_version(drawn, seed):
    problems = [problem(str(n), truth, ours, gpt4) for n, (truth, ours, gpt4, *_) in enumerate(drawn)]
    again = {str(n): {"text": text} for n, (*_, text, asked) in enumerate(drawn) if asked}
    expected = slow(problems, None, seed)
    random.seed(seed)
    assert eval_science_qa_gpt4.ensemble_scores(problems) == {
        "total": len(problems),
        "correct": expected["ensemble"],
        "correct_upperbound": expected["upper"],
        "gpt4_failed": expected["failed"],
    }
    expected = slow(problems, again, seed)
    random.seed(seed)
    assert eval_science_qa_gpt4_requery.requery_scores(problems, again)["counts"] == {
        "our_correct": expected["ours"],
        "gpt4_correct": expected["gpt4"],
        "gpt4_failed": expected["failed"],
        "gpt4_ourvisual_correct": expected["ensemble"],
        "requery_correct": expected["requery"],
        "correct_upperbound": expected["upper2"],
    }


@pytest.fixture
def flags(tmp_path):
    """Four problems: ours is right in the first two, GPT-4 in the last two and silent in the second."""
    truths = {"10": 0, "11": 1, "12": 2, "13": 0}
    ours = {"10": "A", "11": "B", "12": "A", "13": "B"}
    gpt4 = {"10": "B", "11": "-", "12": "C", "13": "A"}
    again = {"10": "A", "12": "B"}
    files = {
        "problems.json": {key: {"choices": CHOICES, "answer": truth} for key, truth in truths.items()},
        "pid_splits.json": {"test": list(truths)},
        "g.json": {"outputs": {key: f"The answer is {letter}." for key, letter in gpt4.items()}},
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    for name, letters in (("o", ours), ("r", again)):
        rows = [{"question_id": k, "prompt": f"q{k}", "text": f"The answer is {v}."} for k, v in letters.items()]
        (tmp_path / f"{name}.jsonl").write_text(lines_of(rows))
    names = {"base-dir": "", "gpt4-result": "g.json", "our-result": "o.jsonl"}
    return [x for name, file in names.items() for x in (f"--{name}", str(tmp_path / file))]


def test_ensemble_prints_upstreams_lines(flags, capsys):
    assert eval_science_qa_gpt4.main(flags) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Total: 4, Correct: 3, Accuracy: 75.00%",
        "Total: 4, Correct (upper): 4, Accuracy: 100.00%",
        "Total: 4, GPT-4 NO-ANS (RANDOM): 1, Percentage: 25.00%",
    ]


def test_requery_prints_upstreams_lines_and_writes_the_scores(flags, tmp_path, capsys):
    out = tmp_path / "s.json"
    more = ["--requery-result", str(tmp_path / "r.jsonl"), "--output-result", str(out), "--seed", "1"]
    assert eval_science_qa_gpt4_requery.main([*flags, *more]) == 0
    said = capsys.readouterr().out
    guess = random.Random(1).choice(range(3)) == 1  # GPT-4's answer to the second problem
    assert said.splitlines()[-6:] == [
        "Total: 4, Our-Correct: 2, Accuracy: 50.00%",
        f"Total: 4, GPT-4-Correct: {2 + guess}, Accuracy: {50 + 25 * guess:.2f}%",
        "Total: 4, GPT-4 NO-ANS (RANDOM): 1, Percentage: 25.00%",
        "Total: 4, GPT-4-OursVisual-Correct: 3, Accuracy: 75.00%",
        "Total: 4, Requery-Correct: 2, Accuracy: 50.00%",
        "Total: 4, Correct upper: 4, Accuracy: 100.00%",
    ]
    assert "Question (C): q12\nOur (A): The answer is A.\nGPT-4 (C): The answer is C.\nRequery (B): " in said
    results = {"10": 0, "11": 1, "12": 1, "13": 1}
    assert json.loads(out.read_text()) == {"acc": 50.0, "correct": 2, "count": 4, "results": results, "outputs": {}}


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("o.jsonl", lambda text: text.split("\n", 1)[1], "lacks 1 of 4 answers: 10"),
        ("o.jsonl", lambda text: text + text, "question_id '10' twice"),
        ("o.jsonl", lambda text: text.replace('"13"', '"14"'), "answers 14"),
        ("g.json", lambda text: text.replace('"13"', '"14"'), "answers 14"),
        ("g.json", lambda text: "{}", "lacks 'outputs'"),
        ("r.jsonl", lambda text: text.replace('"12"', '"99"'), "answers '99', which is no problem"),
        ("problems.json", lambda text: text.replace('"answer": 2', '"answer": 3'), "problem 12: 'answer' is 3"),
        ("pid_splits.json", lambda text: text.replace('"13"', '"15"'), "lacks 1 problems of 'test', as '15'"),
    ],
)
def test_files_that_do_not_match_are_refused(flags, tmp_path, capsys, file, change, message):
    path, out = tmp_path / file, tmp_path / "s.json"
    path.write_text(change(path.read_text()))
    more = ["--requery-result", str(tmp_path / "r.jsonl"), "--output-result", str(out)]
    assert eval_science_qa_gpt4_requery.main([*flags, *more]) == 2
    assert message in capsys.readouterr().err and not out.exists()


def test_ensemble_leaves_out_what_one_of_both_lacks(flags, tmp_path, capsys, caplog):
    """Without 10, which ours lacks, and 12, which GPT-4 does: ours is right in 11, GPT-4 in 13."""
    ours, gpt4 = tmp_path / "o.jsonl", tmp_path / "g.json"
    ours.write_text(ours.read_text().split("\n", 1)[1])
    outputs = json.loads(gpt4.read_text())["outputs"]
    gpt4.write_text(json.dumps({"outputs": {key: text for key, text in outputs.items() if key != "12"}}))
    assert eval_science_qa_gpt4.main(flags) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Total: 2, Correct: 2, Accuracy: 100.00%",
        "Total: 2, Correct (upper): 2, Accuracy: 100.00%",
        "Total: 2, GPT-4 NO-ANS (RANDOM): 1, Percentage: 50.00%",
    ]
    assert [record.getMessage() for record in caplog.records] == [
        "2 of 4 problems lack our answer or GPT-4's, and are left out"
    ]


@pytest.mark.parametrize(
    ("outputs", "message"),
    [({"14": "x"}, "answers 14"), ({}, "no problem of --split test has an answer in both")],
)
def test_ensemble_of_other_problems_or_of_none_is_refused(flags, tmp_path, capsys, outputs, message):
    (tmp_path / "g.json").write_text(json.dumps({"outputs": outputs}))
    assert eval_science_qa_gpt4.main(flags) == 2
    said = capsys.readouterr()
    assert message in said.err and not said.out


def test_ids_that_are_numbers_are_those_that_are_texts(flags, tmp_path, capsys):
    path = tmp_path / "o.jsonl"
    path.write_text(
        path.read_text().replace('"question_id": "1', '"question_id": 1').replace('", "prompt"', ', "prompt"')
    )
    assert eval_science_qa_gpt4.main(flags) == 0


def test_guess_for_what_names_no_choice_is_pythons_next_draw():
    random.seed(3)
    expected = [random.choice(range(2)) for _ in range(5)]
    random.seed(3)
    assert [eval_science_qa_gpt4.get_pred_idx("FAILED", ["x", "y"], ["A", "B", "C"]) for _ in range(5)] == expected
    assert eval_science_qa_gpt4_requery.get_pred_idx("B", ["x", "y"], ["A", "B", "C"]) == 1
    assert eval_science_qa.get_pred_idx("C", ["x", "y"], ["A", "B", "C"]) == -1, "a scorer that does not guess"


def test_captions_of_answers():
    rows = [{"question_id": "12", "text": "a cat"}, {"question_id": 3, "text": "a dog"}]
    expected = [{"image_id": 12, "caption": "a cat"}, {"image_id": 3, "caption": "a dog"}]
    for program in (eval_science_qa, eval_science_qa_gpt4, eval_science_qa_gpt4_requery):
        assert program.convert_caps(rows) == expected
    with pytest.raises(DataError, match="'question_id' is 'a'; expected an integer"):
        eval_science_qa.convert_caps([{"question_id": "a", "text": "x"}])
