"""The command: its answers are those of one question at a time, and nothing is answered twice."""

from __future__ import annotations

import json

import pytest

from ada.eval import budget_table
from ada.eval.accuracy import is_right
from ada.eval.batches import Answerer
from ada.eval.budget_table import main, make_table
from ada.plan import ExecutionPlan
from llava.errors import LlavaError

BUDGETS = ["--budgets", "1", "0.7", "0.3"]


def answers(options, label, name):
    lines = (options.out / "answers" / label / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def table(options):
    return json.loads((options.out / "table.json").read_text())


@pytest.fixture
def calls(monkeypatch):
    """(planner, budget, questions) of every batch that is answered; ``calls.limit`` stops the program behind some."""

    class Calls(list):
        limit = 1_000_000

    seen = Calls()
    original = Answerer.answer

    def counted(self, batch, planner, budget, seed):
        if len(seen) == seen.limit:
            raise KeyboardInterrupt
        seen.append((planner, budget.fraction, len(batch.questions)))
        return original(self, batch, planner, budget, seed)

    monkeypatch.setattr(Answerer, "answer", counted)
    return seen


@pytest.mark.parametrize("kind", ["H", "L"])
def test_answers_are_those_of_one_question_at_a_time(kind, flags, quiz, checkpoint_h, make_adaptive, one_by_one):
    folder = checkpoint_h if kind == "H" else make_adaptive("L")
    options = flags(f"tiny={folder}", more=[*BUDGETS, "--planners", "learned", "last"])
    make_table(options)
    ask = one_by_one(folder)
    questions = [json.loads(line) for line in (quiz / "questions.jsonl").read_text().splitlines()]
    texts = set()
    runs = {"any-1": ("learned", 1.0), "learned-0.7": ("learned", 0.7), "last-0.7": ("last", 0.7)}
    for name, (planner, budget) in runs.items():
        given = answers(options, "tiny", name)
        assert [a["question_id"] for a in given] == list(range(12))
        right = 0
        for question, batched in zip(questions, given, strict=True):
            single = ask(question["text"], quiz / "images" / question["image"], budget, planner)
            assert batched["text"] == single.text
            assert batched["share"] == ExecutionPlan.from_json(single.facts["plan"]).share
            assert batched["prefill_gflops"] == pytest.approx(single.facts["prefill_gflops"], rel=1e-12)
            right += is_right(single.text, question["answer"])
            texts.add(single.text)
        (row,) = [r for r in table(options)["rows"] if (r["planner"], r["budget"]) == (planner, budget)]
        assert (row["correct"], row["total"]) == (right, 12)
        assert row["executed_share"] == pytest.approx(sum(a["share"] for a in given) / 12)
        assert row["prefill_gflops"] == pytest.approx(sum(a["prefill_gflops"] for a in given) / 12)
    assert len(texts) > 3, "answers that are all alike would hide a mistake"


def test_rows_columns_and_picture(flags, checkpoint_h, tmp_path):
    plot = tmp_path / "plots" / "plot.png"
    markdown = make_table(flags(f"tiny={checkpoint_h}", more=[*BUDGETS, "--plot", str(plot)]))
    options = flags(f"tiny={checkpoint_h}")
    assert (options.out / "table.md").read_text() == markdown
    found = table(options)
    assert [(r["planner"], r["budget"]) for r in found["rows"]] == [
        (planner, budget) for planner in ("learned", "even", "last", "random") for budget in (1.0, 0.7, 0.3)
    ]
    first = found["rows"][0]
    assert first["kinds"]["known"]["accuracy"] == 1, "their answers are the model's own"
    assert first["kinds"]["unknown"]["correct"] == 0 and first["correct"] == 6
    assert found["best_constant"]["unknown"] == {
        "answer": "w1", "correct": 2, "total": 6, "accuracy": 1 / 3, "interval": pytest.approx([0.097, 0.7], abs=1e-3)
    }  # fmt: skip
    lines = markdown.splitlines()
    price = f"{first['prefill_gflops']:.5f}"
    assert lines[0] == "|  | budget 1 | budget 0.7 | budget 0.3 |"
    assert [line.split(" | ")[1] for line in lines[2:6]] == ["1.000", price, "100.0", "50.0 (25.4 to 74.6)"]
    planners = [line.split(" | ")[0].removeprefix("| tiny, ") for line in lines[5:9]]
    assert planners == ["learned", "even", "last", "random"]
    assert lines[6].split(" | ")[1] == "50.0 (25.4 to 74.6)<br>+0.0 ± 0.0", "at budget 1 all planners are one"
    assert "| unknown | 6 | 33.3 (w1) | 0.0 |" in markdown
    assert plot.read_bytes().startswith(b"\x89PNG") and not list(plot.parent.glob("*.part"))
    assert all(r["executed_share"] <= r["budget"] + 1e-9 for r in found["rows"] if r["budget"] > 0.34)


def test_planners_share_answers_where_they_have_no_choice(flags, checkpoint_h, calls):
    make_table(flags(f"tiny={checkpoint_h}", more=[*BUDGETS, "--planners", "learned", "even", "random"]))
    asked = {(planner, budget) for planner, budget, _ in calls}
    assert asked == {("learned", 1.0), ("learned", 0.3), ("learned", 0.7), ("even", 0.7), ("random", 0.7)}


def test_a_stopped_table_goes_on(flags, checkpoint_h, calls):
    more = ["--budgets", "1", "0.7", "--planners", "learned", "random"]
    whole = make_table(flags(f"tiny={checkpoint_h}", more=more, out="whole"))
    needed = len(calls)
    calls.clear()
    calls.limit = 5
    options = flags(f"tiny={checkpoint_h}", more=more, out="stopped")
    with pytest.raises(KeyboardInterrupt):
        make_table(options)
    folder = options.out / "answers" / "tiny"
    assert not list(folder.glob("*.jsonl")) and not (options.out / "table.json").exists(), "nothing has its final name"
    part = folder / "random-0.7.jsonl.part"
    last = part.read_text().splitlines()[-1]
    with part.open("a") as stream:
        stream.write(last[: len(last) // 2])  # killed in the middle of a line
    calls.limit = 1_000_000
    assert make_table(options) == whole
    assert len(calls) == needed == 9
    assert not list(folder.glob("*.part")) and not list(folder.glob("*.new"))
    for name in ("any-1", "learned-0.7", "random-0.7"):
        assert answers(options, "tiny", name) == answers(flags(checkpoint_h, out="whole"), "tiny", name)
    assert make_table(options) == whole
    assert len(calls) == needed, "all was there"
    make_table(flags(f"tiny={checkpoint_h}", more=[*more, "last"], out="stopped"))
    assert calls[needed:] == [("last", 0.7, 5), ("last", 0.7, 5), ("last", 0.7, 2)], "only what is new"


@pytest.mark.parametrize(("change", "named"), [(["--seed", "1"], "--seed"), (["--conv-mode", "v0"], "--conv-mode")])
def test_answers_of_another_run_are_not_mixed_in(flags, checkpoint_h, change, named):
    more = ["--budgets", "1", "--planners", "learned"]
    make_table(flags(f"tiny={checkpoint_h}", more=more))
    with pytest.raises(LlavaError, match=f"another {named}; remove it, or choose another --out"):
        make_table(flags(f"tiny={checkpoint_h}", more=[*more, *change]))


def test_answers_of_another_checkpoint_are_not_mixed_in(flags, checkpoint_h, make_adaptive):
    more = ["--budgets", "1", "--planners", "learned"]
    make_table(flags(f"tiny={checkpoint_h}", more=more))
    with pytest.raises(LlavaError, match="another checkpoint"):
        make_table(flags(f"tiny={make_adaptive('L')}", more=more))


def test_checkpoints_side_by_side(flags, checkpoint_h, make_adaptive, tiny_checkpoint):
    """Each under the planner that it was trained with; a plain LLaVA under the one that the flag names."""
    even = make_adaptive("H", planner="even")
    options = flags(
        f"mine={checkpoint_h}", f"trained evenly={even}", f"plain={tiny_checkpoint}:last",
        more=["--budgets", "1", "0.75", "--planners", "learned", "random"],
    )  # fmt: skip
    markdown = make_table(options)
    assert [(r["model"], r["planner"]) for r in table(options)["rows"][::2]] == [
        ("mine", "learned"),
        ("mine", "random"),
        ("trained evenly", "even"),
        ("plain", "last"),
    ]
    assert (options.out / "answers" / "trained-evenly" / "even-0.75.jsonl").exists()
    assert markdown.splitlines()[7].startswith("| trained evenly, even | ")
    rows = table(options)["rows"]
    for row in rows:
        (first,) = [r for r in rows[:2] if r["budget"] == row["budget"]]
        assert row["lead"]["share"] == pytest.approx(row["accuracy"] - first["accuracy"])


def test_a_plain_llava_has_no_learned_planner(quiz, tiny_checkpoint, tmp_path, capsys):
    files = ["--question-file", str(quiz / "questions.jsonl"), "--image-folder", str(quiz / "images")]
    assert main(["--model-path", str(tiny_checkpoint), *files, "--out", str(tmp_path), "--device", "cpu"]) == 2
    assert "none. Train one with" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda lines: [], "holds no questions"),
        (lambda lines: [*lines, "{"], "line 13 is not JSON"),
        (lambda lines: [*lines, '{"question_id": 99, "text": "a"}'], "line 13 lacks image, category, answer"),
        (lambda lines: [*lines, "[]"], "line 13 lacks question_id, image"),
        (lambda lines: [*lines, lines[0]], "13 questions, but only 12 different question_ids"),
        (lambda lines: [lines[0].replace("0.png", "lost.png"), *lines[1:]], "1 of 12 pictures are not in .*lost.png"),
    ],
)
def test_bad_question_files(spoil, message, flags, quiz, tmp_path, checkpoint_h):
    options = flags(checkpoint_h)
    options.question_file = tmp_path / "spoilt.jsonl"
    options.question_file.write_text("\n".join(spoil((quiz / "questions.jsonl").read_text().splitlines())))
    with pytest.raises(LlavaError, match=message):
        make_table(options)
    assert not options.out.exists()


def test_bad_flags(flags, checkpoint_h, tmp_path):
    with pytest.raises(LlavaError, match=r"--latency-budget is '1.5'"):
        make_table(flags(checkpoint_h, more=["--budgets", "1.5"]))
    with pytest.raises(LlavaError, match="names 'a' twice"):
        make_table(flags(f"a={checkpoint_h}", f"a={checkpoint_h}"))
    with pytest.raises(LlavaError, match="nowhere"):
        make_table(flags(tmp_path / "nowhere"))
    options = flags(checkpoint_h)
    options.question_file = tmp_path / "none.jsonl"
    with pytest.raises(LlavaError, match=r"--question-file .*none.jsonl cannot be read"):
        make_table(options)
    with pytest.raises(SystemExit):
        budget_table.parse_arguments(["--model-path", "a", "--planners", "best"])
