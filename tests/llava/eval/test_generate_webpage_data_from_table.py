"""The data of the web page that shows answers next to reviews."""

import json

import pytest

from llava.eval import generate_webpage_data_from_table as page
from llava.files.jsonl import lines_of


@pytest.fixture
def table(tmp_path):
    files = {
        "q": [{"question_id": n, "category": "c", "text": f"what {n}?"} for n in (2, 1)],
        "llama": [{"question_id": n, "text": f"llama {n}"} for n in (1, 2)],
        "vicuna": [{"question_id": n, "text": f"vicuna {n}"} for n in (1, 2)],
        "review": [{"question_id": 1, "text": "6, 8\nAssistant 1 is worse.\nAssistant 2 wins.\n", "score": [6, 8]},
                   {"question_id": 2, "content": "Assistant 2 wins.", "tuple": [5.5, 8.0]}],
    }  # fmt: skip
    for name, rows in files.items():
        (tmp_path / f"{name}.jsonl").write_text(lines_of(rows))
    return ["--questions", f"{tmp_path}/q.jsonl", "--output", f"{tmp_path}/data.json",
            "--answers", f"llama={tmp_path}/llama.jsonl", f"vicuna={tmp_path}/vicuna.jsonl",
            "--reviews", f"llama={tmp_path}/review.jsonl"]  # fmt: skip


def test_page_data(table, tmp_path):
    assert page.main(table) == 0
    data = json.loads((tmp_path / "data.json").read_text())
    assert data["models"] == ["llama"] and [row["id"] for row in data["questions"]] == [1, 2]
    assert data["questions"][0] == {
        "id": 1,
        "category": "c",
        "question": "what 1?",
        "answers": {"llama": "llama 1", "vicuna": "vicuna 1"},
        "evaluations": {"llama": "**Assistant 1** is worse.\n**Assistant 2** wins."},
        "scores": {"llama": [6, 8]},
    }
    assert data["questions"][1]["evaluations"] == {"llama": "**Assistant 2** wins."}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--reviews", "alpaca={d}/review.jsonl"], "--reviews has 'alpaca', which --answers has not"),
        (["--answers", "llama"], "--answers has 'llama'; expected NAME=FILE"),
        (["--answers", "llama={d}/llama.jsonl", "llama={d}/vicuna.jsonl"], "each name once"),
        (["--reviews", "llama={d}/lost.jsonl"], "lost.jsonl cannot be read"),
    ],
)
def test_flags_and_files_that_do_not_match(table, tmp_path, capsys, more, message):
    assert page.main([*table, *(flag.format(d=tmp_path) for flag in more)]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "data.json").exists()


def test_files_are_upstreams_table_by_default(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert page.main([]) == 2 and "--questions table/question.jsonl cannot be read" in capsys.readouterr().err
    assert page.models == ["alpaca", "llama", "gpt35", "bard"]


def test_lines_are_read_as_a_list_or_by_a_key_in_its_order(table, tmp_path):
    rows = page.read_jsonl(str(tmp_path / "q.jsonl"))
    assert [row["question_id"] for row in rows] == [2, 1]
    assert list(page.read_jsonl(str(tmp_path / "q.jsonl"), key="question_id").items()) == [(1, rows[1]), (2, rows[0])]


def test_first_lines_are_cut():
    assert page.trim_hanging_lines(" a\n\n b\nc \n", 1) == "b\nc"
    assert page.trim_hanging_lines("a\nb\nc", 2) == "c" and page.trim_hanging_lines("a", 2) == ""
