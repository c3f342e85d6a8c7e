"""Promises are measured by the program, kept in the checkpoint's folder, counted on other questions, and resumed."""

from __future__ import annotations

import json
import random

import pytest
from PIL import Image

from ada.eval import promise
from ada.eval.stats.promises import Tried, cheapest, count, held_in_resplits, promise_table
from ada.quality.table import read_promises
from ada.quality.threshold import Validated, lowest_threshold
from llava.errors import OptionError


def tries(rng, total, budget):
    """Answers whose chance to differ falls with the margin, and rises as the budget falls."""
    margins = [rng.expovariate(0.5) for _ in range(total)]
    return [Tried(m, rng.random() < (1 - budget) * 2.0 ** (-3 * m), budget, 0.9) for m in margins]


def test_cheapest_budget_that_keeps_the_promise_is_taken():
    rng = random.Random(1)
    given = {budget: tries(rng, 3000, budget) for budget in (0.9, 0.6, 0.3)}
    found = cheapest(given, 0.05)
    confidence = 1 - 0.05 / 3
    alone = [(of, [Validated(one.margin, one.differs) for one in of]) for of in given.values()]
    assert found is not None
    assert found.share == min(count(of, lowest_threshold(seen, 0.05, confidence)).share for of, seen in alone)
    kept, share = held_in_resplits(given, 0.05, 2000, 40)
    assert kept >= 0.85 and share == pytest.approx(found.share, abs=0.05)
    assert cheapest({0.3: given[0.3][:20]}, 0.02) is None


def test_the_cheapest_of_several_alike_is_kept_as_often_as_one_alone():
    """Eight budgets that cost the same: the one that was lucky is chosen, and has to keep the promise elsewhere."""
    rng, broken, trials = random.Random(2), 0, 200
    for _ in range(trials):
        seen, fresh = ({0.5 + b / 1e6: tries(rng, 300, 0.5) for b in range(8)} for _ in range(2))
        found = cheapest(seen, 0.1)
        broken += count(fresh[found.budget], found.threshold).different > 0.1
    assert broken / trials <= 0.07


def test_counts_by_hand():
    given = [
        Tried(3.0, False, 0.4, 0.9),
        Tried(2.0, True, 0.4, 0.9),
        Tried(1.0, True, 0.4, 0.9),
        Tried(0.5, False, 0.4, 0.9),
    ]
    counted = count(given, 2.0)
    assert (counted.accepted, counted.different) == (0.5, 0.25)
    assert counted.share == pytest.approx((0.4 + 0.4 + 1.3 + 1.3) / 4)


def test_table_says_where_questions_are_too_few():
    table = promise_table([], [0.02], None, {})
    assert "| 2.0% | too few questions |" in table and len({line.count("|") for line in table.splitlines()}) == 1


@pytest.fixture
def world(tmp_path, make_adaptive_checkpoint):
    folder = make_adaptive_checkpoint()
    rng = random.Random(0)
    for name, total in (("validation", 80), ("test", 20)):
        lines = []
        for number in range(total):
            image = f"{name}{number}.png"
            Image.new("RGB", (16, 16), tuple(rng.randrange(256) for _ in range(3))).save(tmp_path / image)
            record = {
                "question_id": number,
                "image": image,
                "text": f"w{5 + number % 9}",
                "category": "a",
                "answer": "x",
            }
            lines.append(json.dumps(record))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    return folder, tmp_path


def flags(folder, root, *more):
    given = ["--model-path", folder, "--questions", root / "validation.jsonl", "--test-questions", root / "test.jsonl"]
    given += [
        "--image-folder",
        root,
        "--budgets",
        0.6,
        0.8,
        "--out",
        root / "out",
        "--device",
        "cpu",
        "--max-new-tokens",
        3,
    ]
    return [*map(str, given), *more]


def test_program_writes_promises_and_resumes(world, capsys, monkeypatch):
    folder, root = world
    assert promise.main(flags(folder, root, "--disagreement", "10%", "60%")) == 0
    table = capsys.readouterr().out
    found = read_promises(folder).promises
    assert [one.disagreement for one in found] == [0.1, 0.6] and {one.budget for one in found} <= {0.6, 0.8}
    assert "| 10.0% |" in table and (root / "out" / "promises.md").read_text() in table
    answers = [json.loads(line) for line in (root / "out" / "validation.jsonl").read_text().splitlines()]
    assert len(answers) == 80 and all(set(one["tried"]) == {"0.6", "0.8"} for one in answers)
    assert all(0 < try_["share"] < 1 and 0 < try_["again"] < 1 for one in answers for try_ in one["tried"].values())

    def fail(*args):
        raise AssertionError("answered again")

    monkeypatch.setattr(promise.TryAnswerer, "__call__", fail)
    assert promise.main(flags(folder, root, "--disagreement", "20%")) == 0
    assert [one.disagreement for one in read_promises(folder).promises] == [0.2]


def test_higher_limit_asks_what_is_left(world, monkeypatch):
    folder, root = world
    asked = []
    original = promise.TryAnswerer.__call__
    monkeypatch.setattr(promise.TryAnswerer, "__call__", lambda *given: (asked.append(given[1]), original(*given))[1])
    for limit in ("3", "5", "4"):
        assert promise.main(flags(folder, root, "--limit", limit, "--disagreement", "90%")) == 0
    assert asked == [0, 1, 2] * 2 + [3, 4] * 2, "of validation, then of test questions"
    answers = [json.loads(line) for line in (root / "out" / "validation.jsonl").read_text().splitlines()]
    assert [one["number"] for one in answers] == [0, 1, 2, 3, 4] and not list((root / "out").glob("*.part"))
    assert json.loads((folder / "promises.json").read_text())["about"]["max_new_tokens"] == 3


def test_other_settings_need_another_folder(world, capsys):
    folder, root = world
    assert promise.main(flags(folder, root, "--limit", "3", "--disagreement", "90%")) == 0
    assert promise.main(flags(folder, root, "--limit", "3", "--budgets", "0.7")) == 2
    assert "holds answers with another --budgets" in capsys.readouterr().err
    assert promise.main(flags(folder, root, "--budgets", "1.5")) == 2
    assert "--budgets has 1.5; expected shares in (0, 1)" in capsys.readouterr().err
    with pytest.raises(OptionError, match="max-disagreement is '0'"):
        promise.measure(promise.parse_arguments(flags(folder, root, "--disagreement", "0")))
