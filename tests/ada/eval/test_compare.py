"""Two sweeps compared: hand-counted differences, and folders that cannot be compared."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from ada.eval.sweep import main

KINDS = ["a", "b", "a", "b", "a", "b", "a", "b"]


def write(folder: Path, runs: list[dict], fingerprint: str = "same", name: str = "test", kinds=KINDS) -> Path:
    folder.mkdir(exist_ok=True)
    sets = {name: {"title": f"{name} questions", "fingerprint": fingerprint, "kinds": list(kinds)}}
    (folder / "marks.json").write_text(json.dumps({"sets": sets, "runs": runs}))
    return folder


def run(right: str, model: str = "H", planner: str = "learned", budget: float = 0.5, name: str = "test") -> dict:
    return {"model": model, "planner": planner, "budget": budget, "right": {name: right}}


def test_compare_counts_differences_as_by_hand(tmp_path, capsys):
    one = write(tmp_path / "one", [run("11111111", budget=1.0), run("11110000"), run("10101010", planner="even")])
    other = write(tmp_path / "other", [run("11000111"), run("11111111", budget=1.0)])
    assert main(["--compare", str(one), str(other), "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert shown == (tmp_path / "out" / "compare.md").read_text()
    assert "H, learned, budget 1\n" in shown and "even" not in shown, "only what both have"
    # A is right in questions 1 to 4, B in 1, 2, 6, 7, 8. Of kind a (1, 3, 5, 7): A 1, 3 and B 1, 7. Of kind b:
    # A 2, 4 and B 2, 6, 8.
    half = [line for line in shown.partition("budget 0.5")[2].splitlines() if "questions |" in line]
    lines = {line.split(" | ")[1]: line for line in half}
    assert "| 8 | 50.0 | 62.5 | +12.5 ± 54.1 | 2 | 3 | 1.000 (1.000) |" in lines["all"]
    assert "| 4 | 50.0 | 50.0 | +0.0 ± 69.3 | 1 | 1 |" in lines["a"]
    assert "| 4 | 50.0 | 75.0 | +25.0 ± 81.3 | 1 | 2 |" in lines["b"]
    rows = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert len(rows) == 6 and rows[3]["difference"] == 0.125 and (rows[3]["only_a"], rows[3]["only_b"]) == (2, 3)
    with (tmp_path / "out" / "compare.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [float(line["p"]) for line in table] == [row["p"] for row in rows]


def test_compare_adjusts_p_values_for_the_lines_of_a_table(tmp_path, capsys):
    kinds = ["a"] * 10
    one = write(tmp_path / "one", [run("0" * 10)], kinds=kinds)
    other = write(tmp_path / "other", [run("1" * 10)], kinds=kinds)
    assert main(["--compare", str(one), str(other)]) == 0
    assert "| 0 | 10 | 0.002 (0.004) |" in capsys.readouterr().out, "2 / 1024, for all questions and for their one kind"


def test_compare_pairs_single_models_whatever_their_labels(tmp_path, capsys):
    one, other = (write(tmp_path / name, [run("11110000", model=name)]) for name in ("H", "L"))
    assert main(["--compare", str(one), str(other)]) == 0
    assert "H and L, learned, budget 0.5" in capsys.readouterr().out
    write(one, [run("11110000", model="H"), run("11110000", model="G")])
    assert main(["--compare", str(one), str(other)]) == 2
    error = capsys.readouterr().err
    assert "have no model, planner and budget in common" in error and "(G, H)" in error and "(L)" in error


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "marks.json").unlink(), "holds no marks.json; expected the --out folder"),
        (lambda folder: (folder / "marks.json").write_text(""), "is not JSON"),
        (lambda folder: (folder / "marks.json").write_text("[]"), "is not what a sweep writes"),
        (lambda folder: write(folder, []), "holds no runs"),
        (lambda folder: write(folder, [run("111")]), "marks missing"),
        (lambda folder: write(folder, [run("11110000")], "another"), "in test their questions differ"),
        (lambda folder: write(folder, [run("11110000", name="b")], name="b"), "they share no set of questions"),
        (lambda folder: write(folder, [run("11110000", budget=0.6)]), "have no model, planner and budget in common"),
    ],
)
def test_compare_refuses_folders_that_cannot_be_paired(tmp_path, capsys, spoil, message):
    one, other = (write(tmp_path / name, [run("11110000")]) for name in ("one", "other"))
    spoil(other)
    out = tmp_path / "out"
    assert main(["--compare", str(one), str(other), "--out", str(out)]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.out == "" and not out.exists()
