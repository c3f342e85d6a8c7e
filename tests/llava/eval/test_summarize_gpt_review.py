"""Which review files are summarized."""

import pytest

from llava.eval import summarize_gpt_review
from llava.files.jsonl import lines_of

NAMES = ["answers", "gpt4_text_a-7b", "reviews_a-13b", "review_b-7b-0613", "reviews_b-13b-0613"]


@pytest.fixture
def summarized(tmp_path, capsys):
    """``summarized(*flags, folder="runs")``: the titles that are printed for a folder of NAMES, or the exit code."""

    def run(*flags, folder="runs"):
        (tmp_path / folder).mkdir(exist_ok=True)
        for name in NAMES:
            row = {"question_id": 1, "text": "no review"} if name == "answers" else {"question_id": 1, "score": [8, 4]}
            (tmp_path / folder / f"{name}.jsonl").write_text(lines_of([row]))
        given = [str(flag).replace("DIR", str(tmp_path / folder)) for flag in flags]
        code = summarize_gpt_review.main(given)
        lines = capsys.readouterr().out.splitlines()
        return code or [line for line in lines if "=" not in line and not line.startswith("all")]

    return run


REVIEWS = ["a-7b", "review_b-7b-0613", "reviews_a-13b", "reviews_b-13b-0613"]


@pytest.mark.parametrize(
    ("flags", "titles"),
    [
        (["-d", "DIR"], REVIEWS),
        (["-d", "DIR", "-v", "0613"], ["review_b-7b-0613", "reviews_b-13b-0613"]),
        (["-d", "DIR", "--version", "0314"], ["a-7b", "reviews_a-13b"]),
        (["-d", "DIR", "-s", "7b"], ["a-7b", "review_b-7b-0613"]),
        (["-d", "DIR", "--select", "13b", "reviews"], ["reviews_a-13b", "reviews_b-13b-0613"]),
        (["-d", "DIR", "-s", "7b", "-v", "0314"], ["a-7b"]),
        (["-d", "DIR", "-s", "gpt4"], 2),
        (["-d", "DIR", "-f", "reviews_a-13b.jsonl", "gpt4_text_a-7b.jsonl", "-s", "a-7b"], ["a-7b"]),
    ],
)
def test_folder_words_and_version_choose_files_as_upstream(summarized, flags, titles):
    assert summarized(*flags) == titles


def test_every_file_of_a_folder_of_reviews_counts(summarized):
    assert summarized("-d", "DIR", "-s", "7b", folder="my_reviews") == ["a-7b", "review_b-7b-0613"]
    assert summarized("-d", "DIR", folder="my_reviews") == 2, "answers.jsonl holds no review"


def test_words_that_leave_nothing_are_named(summarized, tmp_path, capsys):
    (tmp_path / "review_a.jsonl").write_text(lines_of([{"question_id": 1, "score": [8, 4]}]))
    assert summarize_gpt_review.main(["-f", str(tmp_path / "review_a.jsonl"), "-v", "0613"]) == 2
    assert "--select and --version leave out all of 1 files, as review_a.jsonl" in capsys.readouterr().err
