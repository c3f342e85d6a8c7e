"""ScienceQA's problems as prompts and as LLaVA's training file."""

import json
from types import SimpleNamespace

import convert_sqa_to_llava_base_prompt as prompts
import pytest
from convert_sqa_to_llava import convert_to_jsonl, convert_to_llava, main

from llava.errors import DataError, OptionError

PROBLEM = {
    "question": "Which  is red?",
    "choices": ["sky", "rose"],
    "answer": 1,
    "hint": "",
    "lecture": "Colours\nare light.",
    "solution": "Roses are red.",
    "image": "image.png",
    "caption": "A garden.",
}
ASKED = "Question: Which is red?\nContext: N/A\nOptions: (A) sky (B) rose"
OUTPUTS = {
    "A": "Answer: The answer is B.",
    "AL": "Answer: The answer is B. BECAUSE: Roses are red.",
    "AE": "Answer: The answer is B. BECAUSE: Colours\nare light.",
    "ALE": "Answer: The answer is B. BECAUSE: Colours\nare light. Roses are red.",
    "AEL": "Answer: The answer is B. BECAUSE: Roses are red. Colours\nare light.",
    "LA": "Answer: Colours\nare light. The answer is B.",
    "EA": "Answer: Roses are red. The answer is B.",
    "LEA": "Answer: Colours\nare light. Roses are red. The answer is B.",
    "ELA": "Answer: Roses are red. Colours\nare light. The answer is B.",
    "LEPA": "LECTURE: Colours\nare light.\nSOLUTION: Roses are red.\n###\nANSWER: B.",
}
INPUTS = {
    "QCM": ASKED,
    "CQM": "Context: N/A\nQuestion: Which is red?\nOptions: (A) sky (B) rose",
    "QCML": ASKED + "\nBECAUSE: Colours\nare light.",
    "QCME": ASKED + "\nBECAUSE: Roses are red.",
    "QCMLE": ASKED + "\nBECAUSE: Colours\nare light. Roses are red.",
    "QCLM": ASKED.replace("Options", "BECAUSE: Colours\nare light.\nOptions"),
    "QCEM": ASKED.replace("Options", "BECAUSE: Roses are red.\nOptions"),
    "QCLEM": ASKED.replace("Options", "BECAUSE: Colours\nare light. Roses are red.\nOptions"),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_chat_prompt_answers_as_the_format_says(name):
    assert prompts.build_prompt_chatbot({"1": PROBLEM}, ["1"], f"QCM-{name}") == {"1": (ASKED, OUTPUTS[name])}


@pytest.mark.parametrize("name", INPUTS)
def test_chat_prompt_asks_as_the_format_says(name):
    asked = prompts.build_prompt_chatbot({"1": PROBLEM}, ["1"], f"{name}-A", is_test=True)
    assert asked == {"1": (INPUTS[name], "Answer:")}


def test_chat_prompt_without_a_reason_has_no_because():
    problem = {**PROBLEM, "lecture": "", "solution": ""}
    assert prompts.build_prompt_chatbot({"1": problem}, ["1"], "QCML-AL") == {"1": (ASKED, "Answer: The answer is B.")}


def test_prompt_with_examples_ends_where_the_answer_begins():
    settings = SimpleNamespace(options=["A", "B"], prompt_format="QCM-LEA", use_caption=True)
    text = prompts.build_prompt({"1": PROBLEM, "2": {**PROBLEM, "hint": "Look:"}}, ["1"], "2", settings)
    first, second = text.split("\n\n")
    assert first == ASKED.replace("N/A", "A garden.") + "\nAnswer: Colours\\nare light. Roses are red. The answer is B."
    assert second == ASKED.replace("N/A", "Look: A garden.") + "\nAnswer:"
    messages = prompts.build_prompt_gpt4({"1": PROBLEM}, [], "1", settings)
    assert [message["role"] for message in messages] == ["system", "user", "assistant"]
    assert messages[1]["content"] == f"Can you explain {ASKED.replace('N/A', 'A garden.')}?"


@pytest.mark.parametrize("name", ["QCM", "QCM-", "XCM-A", "QCM-B", "-A", ""])
def test_format_that_does_not_exist_is_refused(name):
    with pytest.raises(OptionError, match="expected one of CQM, QCM"):
        prompts.build_prompt_chatbot({"1": PROBLEM}, ["1"], name)


@pytest.fixture
def base(tmp_path):
    """ScienceQA's folder: one problem with an image, one without."""
    problems = {"7": PROBLEM, "9": {**PROBLEM, "image": None, "hint": "Look."}}
    (tmp_path / "problems.json").write_text(json.dumps(problems))
    (tmp_path / "pid_splits.json").write_text(json.dumps({"train": ["9", "7"], "test": [], "lost": ["8"]}))
    return tmp_path


def test_training_file_has_a_conversation_for_each_problem(base):
    convert_to_llava(base, "train", "QCM-LEA")
    text_only, with_image = json.loads((base / "llava_train_QCM-LEA.json").read_text())
    answer = {"from": "gpt", "value": OUTPUTS["LEA"].removeprefix("Answer: ")}
    asked = ASKED.removeprefix("Question: ")
    assert text_only == {
        "id": "9",
        "conversations": [{"from": "human", "value": asked.replace("N/A", "Look.")}, answer],
    }
    assert with_image == {
        "id": "7",
        "image": "7/image.png",
        "conversations": [{"from": "human", "value": asked + "\n<image>"}, answer],
    }


def test_instructions_are_a_line_each(base):
    convert_to_jsonl(str(base), "train")
    lines = (base / "scienceqa_train_QCM-LEPA.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["9", "7"]
    assert json.loads(lines[1])["output"] == OUTPUTS["LEPA"]


@pytest.mark.parametrize("form", ["convert_to_llava", "convert_to_jsonl"])
def test_marks_are_removed_wherever_they_stand_as_upstream(base, form):
    """But only from a text that begins with one: the prompt of CQM does not."""
    own = {"question": "Which Question: is it?", "hint": "Answer: none.", "solution": "Answer: Question: B."}
    (base / "problems.json").write_text(json.dumps({"7": {**PROBLEM, **own}, "9": {**PROBLEM, "image": None}}))
    found = {}
    for name in ("QCM-EA", "CQM-LEPA"):
        assert main([form, "--base-dir", str(base), "--split", "train", "--prompt-format", name]) == 0
        (path,) = base.glob(f"*_train_{name}.json*")
        rows = json.loads(path.read_text()) if form == "convert_to_llava" else map(json.loads, path.open())
        row = {row["id"]: row for row in rows}["7"]
        if form == "convert_to_llava":
            found[name] = [turn["value"] for turn in row["conversations"]]
        else:
            found[name] = [row["instruction"], row["output"]]
    first, second = found.values()
    assert first == [
        "Which is it?\nContext: Answer: none.\nOptions: (A) sky (B) rose\n<image>",
        "Question: B. The answer is B.",
    ]
    assert second[0].startswith("Context: Answer: none.\nQuestion: Which Question: is it?\n")
    assert second[1].startswith("LECTURE: ") and "SOLUTION: Answer: Question: B." in second[1]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("answer", 2),
        ("answer", None),
        ("answer", True),
        ("choices", []),
        ("choices", "ab"),
        ("choices", ["a"] * 6),
        ("hint", None),
        ("question", 3),
        ("lecture", None),
        ("solution", []),
        ("image", 4),
    ],
)
def test_problem_with_a_field_that_cannot_be_used_is_named(base, capsys, field, value):
    problems = json.loads((base / "problems.json").read_text())
    problems["7"][field] = value
    (base / "problems.json").write_text(json.dumps(problems))
    assert main(["convert_to_llava", "--base-dir", str(base), "--split", "train"]) != 0
    error = capsys.readouterr().err
    assert f"problem '7': '{field}'" in error and not list(base.glob("llava_*"))


@pytest.mark.parametrize(
    ("split", "says"),
    [("val", "--split is 'val'; .* has train, test, lost"), ("lost", "lacks 1 problems of 'lost', as '8'")],
)
def test_split_that_cannot_be_used_is_refused(base, split, says):
    with pytest.raises(DataError, match=says):
        convert_to_llava(base, split)
