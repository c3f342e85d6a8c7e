"""A sweep's answers are those of one question at a time, and nothing is answered twice."""

from __future__ import annotations

import csv
import json
import shutil
import statistics

import pytest
from PIL import Image

from ada.eval.answering.batches import Answerer
from ada.eval.compare import compare
from ada.eval.questions.exact_match import is_right
from ada.eval.report.figures import frontier
from ada.eval.sweep import main, parse_arguments, sweep
from ada.frontier.store import save_frontier
from ada.frontier.table import Point
from ada.scheduling.execution_plan import ExecutionPlan
from llava.errors import LlavaError, OptionError

pytestmark = pytest.mark.integration  # they run sweeps

BUDGETS = ["--budgets", "1", "0.7", "0.3"]


def answers(options, label, name):
    lines = (options.out / "answers" / label / "questions" / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def table(options):
    return json.loads((options.out / "sweep.json").read_text())


def asked(row):
    """A row's figures on the test questions."""
    return row["sets"]["questions"]


@pytest.fixture
def calls(monkeypatch):
    """(planner, budget, questions) of every batch that is answered; ``calls.limit`` stops the program after some."""

    class Calls(list):
        limit = 1_000_000

    seen = Calls()
    original = Answerer.answer

    def counted(self, batch, images, options, seed):
        if len(seen) == seen.limit:
            raise KeyboardInterrupt
        seen.append((options["planner"], options["latency_budget"].fraction, len(batch.items)))
        return original(self, batch, images, options, seed)

    monkeypatch.setattr(Answerer, "answer", counted)
    return seen


@pytest.mark.parametrize("kind", ["H", "L"])
def test_sweep_answers_in_batches_as_one_question_at_a_time(kind, flags, quiz, checkpoint_h, make_adaptive, one_by_one):
    folder = checkpoint_h if kind == "H" else make_adaptive("L")
    options = flags(f"tiny={folder}", more=[*BUDGETS, "--planners", "learned", "last"])
    sweep(options)
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
            assert ExecutionPlan.from_json(batched["plan"]) == ExecutionPlan.from_json(single.metadata["plan"])
            assert batched["share"] == ExecutionPlan.from_json(single.metadata["plan"]).share
            assert batched["prefill_gflops"] == pytest.approx(single.metadata["prefill_gflops"], rel=1e-12)
            right += is_right(single.text, question["answer"])
            texts.add(single.text)
        (row,) = [r for r in table(options)["rows"] if (r["planner"], r["budget"]) == (planner, budget)]
        own = asked(row)
        assert (own["correct"], own["total"]) == (right, 12)
        assert own["executed_share"] == pytest.approx(sum(a["share"] for a in given) / 12)
        assert own["prefill_gflops"] == pytest.approx(sum(a["prefill_gflops"] for a in given) / 12)
    assert len(texts) > 3, "answers that are all alike would hide a mistake"


def test_sweep_writes_tables_and_figures(flags, checkpoint_h):
    options = flags(f"tiny={checkpoint_h}", more=BUDGETS)
    markdown = sweep(options)
    assert (options.out / "sweep.md").read_text() == markdown
    found = table(options)
    assert [(r["planner"], r["budget"]) for r in found["rows"]] == [
        (planner, budget) for planner in ("learned", "even", "last", "random") for budget in (1.0, 0.7, 0.3)
    ]
    first = asked(found["rows"][0])
    assert first["kinds"]["known"]["accuracy"] == 1, "their answers are the model's own"
    assert first["kinds"]["unknown"]["correct"] == 0 and first["correct"] == 6
    assert found["sets"]["questions"]["best_constant"]["unknown"] == {
        "answer": "w1", "correct": 2, "total": 6, "accuracy": 1 / 3, "interval": pytest.approx([0.097, 0.7], abs=1e-3)
    }  # fmt: skip
    lines = markdown.splitlines()
    price = f"{first['prefill_gflops']:.5f}"
    assert lines[0] == "### AdaLLaVA-H: heads and neurons" and lines[2] == "|  | budget 1 | budget 0.7 | budget 0.3 |"
    assert [line.split(" | ")[1] for line in lines[4:8]] == ["1.000", price, "100.0", "50.0 (25.4 to 74.6)"]
    planners = [line.split(" | ")[0].removeprefix("| tiny, ") for line in lines[7:11]]
    assert planners == ["learned", "even", "last", "random"]
    assert lines[8].split(" | ")[1] == "50.0 (25.4 to 74.6)<br>+0.0 ± 0.0", "at budget 1 all planners are one"
    assert "| unknown | 6 | 33.3 (w1) | 0.0 |" in markdown
    assert all(asked(r)["executed_share"] <= r["budget"] + 1e-9 for r in found["rows"] if r["budget"] > 0.34)
    names = ("accuracy-H", "kinds-H-flops", "plans-H", "plans-H-kinds")
    figures = {path.name for path in (options.out / "figures").iterdir()}
    assert figures == {f"{name}.{form}" for name in names for form in ("png", "svg")}
    assert (options.out / "figures" / "plans-H.png").read_bytes().startswith(b"\x89PNG")
    assert not [path for path in options.out.rglob("*") if path.suffix in (".part", ".new")]


def test_sweep_csv_has_the_figures_of_the_json(flags, checkpoint_h):
    options = flags(f"tiny={checkpoint_h}", more=BUDGETS)
    sweep(options)
    with (options.out / "sweep.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    rows = {(row["planner"], row["budget"]): asked(row) for row in table(options)["rows"]}
    assert len(lines) == 3 * len(rows), "a line for all questions, and one for each of two kinds"
    for line in lines:
        own = rows[line["planner"], float(line["budget"])]
        figures = own if line["kind"] == "all" else own["kinds"][line["kind"]]
        assert (int(line["correct"]), int(line["total"])) == (figures["correct"], figures["total"])
        assert [float(line["low"]), float(line["high"])] == figures["interval"]
        assert line["first_token_ms"] == "" and float(line["executed_share"]) == own["executed_share"]


def test_sweep_counts_what_runs_over_the_plans_that_ran(flags, quiz, checkpoint_h, one_by_one):
    options = flags(f"tiny={checkpoint_h}", more=["--budgets", "0.7", "--planners", "learned"])
    sweep(options)
    (run,) = json.loads((options.out / "plans.json").read_text())
    ask, counts = one_by_one(checkpoint_h), {"all": 0, "known": 0, "unknown": 0}
    for question in map(json.loads, (quiz / "questions.jsonl").read_text().splitlines()):
        plan = ask(question["text"], quiz / "images" / question["image"], 0.7, "learned").metadata["plan"]
        for kind in ("all", question["category"]):
            counts[kind] += ExecutionPlan.from_json(plan).gates()
    for kind, gates in counts.items():
        often = gates / (12 if kind == "all" else 6)
        for layer, written in zip(often, run["ran"]["questions"][kind], strict=True):
            assert written["heads"] == pytest.approx(layer[0].tolist(), abs=1e-4)
            assert written["neuron_groups"] == pytest.approx(layer[1].tolist(), abs=1e-4)


def test_sweep_times_questions_asked_alone(flags, checkpoint_h, monkeypatch, calls):
    sizes = []
    original = Answerer.time

    def seen(self, batch, options, seed, tokens):
        sizes.append(len(batch.items))
        return original(self, batch, options, seed, tokens)

    monkeypatch.setattr(Answerer, "time", seen)
    more = [*BUDGETS, "--planners", "learned", "last", "--timed-questions", "4"]
    options = flags(f"tiny={checkpoint_h}", more=more)
    markdown = sweep(options)
    assert set(sizes) == {1} and len(sizes) == 4 * (4 + 3), "four runs that differ, four questions and three to warm up"
    files = sorted((options.out / "times" / "tiny").glob("*.jsonl"))
    assert [file.stem for file in files] == ["any-0.3", "any-1", "last-0.7", "learned-0.7"]
    for file in files:
        given = [json.loads(line) for line in file.read_text().splitlines()]
        assert len({times["number"] for times in given}) == 4
        assert all(min(times["first_token_ms"], times["again_ms"]) > 0 for times in given)
        assert all(len(times["token_ms"]) == 8 for times in given)
    (row,) = [r for r in table(options)["rows"] if (r["planner"], r["budget"]) == ("last", 0.7)]
    given = [json.loads(line) for line in files[2].read_text().splitlines()]
    assert row["times"]["first_token_ms"]["median"] == pytest.approx(
        statistics.median(times["first_token_ms"] for times in given)
    )
    assert row["times"]["answers"] == 4 and "| TTFT, ms |" in markdown
    assert (options.out / "figures" / "kinds-H-first-token.svg").exists()
    assert sweep(options) == markdown and len(sizes) == 28, "nothing is timed twice"
    with pytest.raises(LlavaError, match="another --timed-questions"):
        sweep(flags(f"tiny={checkpoint_h}", more=[*more, "--timed-questions", "5"]))


def test_sweep_shares_answers_of_planners_without_a_choice(flags, checkpoint_h, calls):
    sweep(flags(f"tiny={checkpoint_h}", more=[*BUDGETS, "--planners", "learned", "even", "random"]))
    asked = {(planner, budget) for planner, budget, _ in calls}
    assert asked == {("learned", 1.0), ("learned", 0.3), ("learned", 0.7), ("even", 0.7), ("random", 0.7)}


def test_sweep_of_a_model_that_answers_with_auto_asks_every_planner(flags, make_adaptive, calls):
    """At a budget that grants no units beyond the prefix, ``auto`` buys some by leaving out image tokens."""
    trained = make_adaptive("H", image_token_dropout=0.25)
    points = [Point(tokens, tokens, units, 0.9 if units == 1 else 0.0) for tokens in (1, 0.25) for units in (1, 1 / 3)]
    save_frontier(trained, points, {})
    options = flags(f"tiny={trained}", more=["--budgets", "1", "0.37", "--planners", "learned", "last"])
    sweep(options)
    asked = {(planner, budget) for planner, budget, _ in calls}
    assert asked == {("learned", 1.0), ("learned", 0.37), ("last", 0.37)}
    learned, last = ([a["plan"] for a in answers(options, "tiny", f"{name}-0.37")] for name in ("learned", "last"))
    assert learned != last, "the planners have a choice"


def test_sweep_of_image_tokens_has_a_line_for_each_amount_and_selector(flags, checkpoint_h, calls):
    tokens = ["--image-tokens", "all,50%", "50%/25%", "--token-selectors", "salient", "grid"]
    options = flags(f"tiny={checkpoint_h}", more=["--budgets", "1,0.7", "--planners", "learned", *tokens])
    markdown = sweep(options)
    names = [f"tiny, learned, {own}" for own in ("all", "50% salient", "50% grid", "50%/25% salient", "50%/25% grid")]
    table = markdown.partition("Image tokens and budgets:\n\n")[2].partition("\n\n")[0]
    assert [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()[2:]] == names
    rows = json.loads((options.out / "sweep.json").read_text())["rows"]
    cost = {(row["image_tokens"], row["budget"]): row["sets"]["questions"]["prefill_gflops"] for row in rows}
    assert len(cost) == 10
    assert cost["50%/25% grid", 1.0] < cost["50% grid", 1.0] < cost["all", 1.0]
    given = json.loads((options.out / "answers/tiny/questions/learned-1-50pc-25pc-grid.jsonl").open().readline())
    assert given["image_tokens"] == {"all": 4, "kept": 2, "late": 1}
    compared = compare((options.out, options.out))
    assert all(f"{name}, budget 0.7" in compared for name in names)
    calls.clear()
    assert sweep(options) == markdown and not calls, "answers are found again"


def test_sweep_of_an_amount_that_is_none_is_refused(flags, checkpoint_h):
    with pytest.raises(OptionError, match="--image-tokens is '0'"):
        sweep(flags(f"tiny={checkpoint_h}", more=["--image-tokens", "50%,0"]))


def test_frontier_holds_what_no_cheaper_point_is_as_good_as():
    assert frontier([(3, 0.9), (1, 0.5), (2, 0.5), (2, 0.8), (4, 0.9), (5, 0.95)]) == [
        (1, 0.5), (2, 0.8), (3, 0.9), (5, 0.95),
    ]  # fmt: skip


def test_sweep_that_was_stopped_resumes(flags, checkpoint_h, calls):
    more = ["--budgets", "1", "0.7", "--planners", "learned", "random"]
    complete = sweep(flags(f"tiny={checkpoint_h}", more=more, out="complete"))
    needed = len(calls)
    calls.clear()
    calls.limit = 5
    options = flags(f"tiny={checkpoint_h}", more=more, out="stopped")
    with pytest.raises(KeyboardInterrupt):
        sweep(options)
    folder = options.out / "answers" / "tiny" / "questions"
    assert not list(folder.glob("*.jsonl")) and not (options.out / "sweep.json").exists(), "nothing has its final name"
    part = folder / "random-0.7.jsonl.part"
    last = part.read_text().splitlines()[-1]
    with part.open("a") as stream:
        stream.write(last[: len(last) // 2])  # killed in the middle of a line
    calls.limit = 1_000_000
    assert sweep(options) == complete
    assert len(calls) == needed == 9
    assert not list(folder.glob("*.part")) and not list(folder.glob("*.new"))
    for name in ("any-1", "learned-0.7", "random-0.7"):
        assert answers(options, "tiny", name) == answers(flags(checkpoint_h, out="complete"), "tiny", name)
    assert sweep(options) == complete
    assert len(calls) == needed, "all was there"
    sweep(flags(f"tiny={checkpoint_h}", more=[*more, "last"], out="stopped"))
    assert calls[needed:] == [("last", 0.7, 5), ("last", 0.7, 5), ("last", 0.7, 2)], "only what is new"


@pytest.mark.parametrize(("change", "named"), [(["--seed", "1"], "--seed"), (["--conv-mode", "v0"], "--conv-mode")])
def test_sweep_refuses_answers_with_other_settings(flags, checkpoint_h, change, named):
    more = ["--budgets", "1", "--planners", "learned"]
    sweep(flags(f"tiny={checkpoint_h}", more=more))
    with pytest.raises(LlavaError, match=f"another {named}; remove it, or choose another --out"):
        sweep(flags(f"tiny={checkpoint_h}", more=[*more, *change]))


def test_sweep_refuses_answers_about_other_images(flags, quiz, checkpoint_h, tmp_path):
    """Of the same names; a folder that an earlier release has written does not say which images were asked about."""
    more = ["--budgets", "1", "--planners", "learned"]
    options = flags(f"tiny={checkpoint_h}", more=more)
    table = sweep(options)
    moved = shutil.copytree(quiz / "images", tmp_path / "moved")
    assert sweep(flags(f"tiny={checkpoint_h}", more=[*more, "--image-folder", str(moved)])) == table
    Image.new("RGB", (16, 16), "red").save(moved / "7.png")
    changed = flags(f"tiny={checkpoint_h}", more=[*more, "--image-folder", str(moved)])
    with pytest.raises(LlavaError, match="answers with another set of images; remove it, or choose another --out"):
        sweep(changed)
    note = options.out / "answers" / "tiny" / "questions" / "source.json"
    old = json.loads(note.read_text())
    del old["images"]
    note.write_text(json.dumps(old))
    assert sweep(changed) == table


def test_sweep_refuses_times_under_another_limit_of_narrow_layers(flags, checkpoint_h):
    more = ["--budgets", "0.7", "--planners", "learned", "--timed-questions", "1"]
    limit = ["--narrow-cache-gb", "1"]
    for first, then in ((limit, []), ([], limit)):
        out = f"out{len(first)}"
        sweep(flags(f"tiny={checkpoint_h}", more=[*more, *first], out=out))
        with pytest.raises(LlavaError, match="another --narrow-cache-gb"):
            sweep(flags(f"tiny={checkpoint_h}", more=[*more, *then], out=out))


def test_sweep_refuses_answers_of_another_checkpoint(flags, checkpoint_h, make_adaptive):
    more = ["--budgets", "1", "--planners", "learned"]
    sweep(flags(f"tiny={checkpoint_h}", more=more))
    with pytest.raises(LlavaError, match="another checkpoint"):
        sweep(flags(f"tiny={make_adaptive('L')}", more=more))


def test_sweep_asks_each_checkpoint_under_its_planner(flags, checkpoint_h, make_adaptive, tiny_checkpoint):
    """Each under the planner that it was trained with; a plain LLaVA under the one that the flag names."""
    even = make_adaptive("H", planner="even")
    options = flags(
        f"mine={checkpoint_h}", f"trained evenly={even}", f"plain={tiny_checkpoint}:last",
        more=["--budgets", "1", "0.75", "--planners", "learned", "random"],
    )  # fmt: skip
    markdown = sweep(options)
    assert [(r["model"], r["planner"]) for r in table(options)["rows"][::2]] == [
        ("mine", "learned"),
        ("mine", "random"),
        ("trained evenly", "even"),
        ("plain", "last"),
    ]
    assert (options.out / "answers" / "trained-evenly" / "questions" / "even-0.75.jsonl").exists()
    assert markdown.splitlines()[9].startswith("| trained evenly, even | ")
    rows = table(options)["rows"]
    for row in rows:
        (first,) = [r for r in rows[:2] if r["budget"] == row["budget"]]
        assert asked(row)["lead"]["share"] == pytest.approx(asked(row)["accuracy"] - asked(first)["accuracy"])


def test_sweep_makes_a_table_for_each_kind_of_unit(flags, checkpoint_h, make_adaptive):
    layers = make_adaptive("L")
    more = ["--budgets", "1,0.75", "--planners", "learned,last"]
    options = flags(f"mine={checkpoint_h}", f"layers={layers}", more=more)
    markdown = sweep(options)
    headings = [line for line in markdown.splitlines() if line.startswith("#")]
    assert headings == ["### AdaLLaVA-H: heads and neurons", "### AdaLLaVA-L: whole layers"]
    rows = table(options)["rows"]
    assert [row["kind_of_unit"] for row in rows] == ["H"] * 4 + ["L"] * 4
    assert asked(rows[4])["lead"]["gains"] == asked(rows[4])["lead"]["losses"] == 0, "it is compared with itself"


def test_sweep_refuses_the_learned_planner_on_a_plain_llava(quiz, tiny_checkpoint, tmp_path, capsys):
    files = ["--question-file", str(quiz / "questions.jsonl"), "--image-folder", str(quiz / "images")]
    assert main(["--model-path", str(tiny_checkpoint), *files, "--out", str(tmp_path), "--device", "cpu"]) == 2
    assert "none. Train one with" in capsys.readouterr().err
    assert not list(tmp_path.iterdir()), "nothing was answered, so nothing is left"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--budgets", "1.5"], r"--latency-budget is '1.5'"),
        (["--budgets", "1,half"], r"--latency-budget is 'half'"),
        (["--budgets", "850ms"], r"--latency-budget is '850ms', a time"),
        (["--budgets", "1", "1.0"], "--budgets names 1 twice"),
        (["--planners", "best"], "--planner is 'best'; expected one of learned, even, last, random"),
        (["--planners", "even,even"], "--planners names even twice"),
    ],
)
def test_sweep_refuses_bad_budgets_and_planners(more, message, flags, checkpoint_h):
    options = flags(checkpoint_h, more=more)
    with pytest.raises(LlavaError, match=message):
        sweep(options)
    assert not options.out.exists()


def test_sweep_refuses_bad_paths(flags, checkpoint_h, tmp_path):
    with pytest.raises(LlavaError, match="names 'a' twice"):
        sweep(flags(f"a={checkpoint_h}", f"a={checkpoint_h}"))
    with pytest.raises(LlavaError, match="nowhere"):
        sweep(flags(tmp_path / "nowhere"))
    options = flags(checkpoint_h)
    options.question_file = tmp_path / "none.jsonl"
    with pytest.raises(LlavaError, match=r"--question-file .*none.jsonl cannot be read"):
        sweep(options)
    assert not options.out.exists()


def test_main_refuses_settings_out_of_range(capsys, tmp_path):
    flags = ["--suite", "shapes", "--timed-questions", "-1", "--out", str(tmp_path / "out")]
    assert main(flags) == 2
    assert "--timed-questions is -1" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ([], "--suite"),
        (["--suite", "shapes", "--question-file", "a.jsonl"], "--question-file"),
        (["--question-file", "a.jsonl"], "--image-folder"),
        (["--compare", "one"], "--compare"),
    ],
)
def test_parse_arguments_refuses_flags_that_do_not_go_together(given, named, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(given)
    assert named in capsys.readouterr().err
