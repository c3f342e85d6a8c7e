"""Model paths with labels and planners, and the files that runs share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ada.budget import LatencyBudget
from ada.eval.answering.model_specs import ModelSpec, Run, parse_model_specs, run_by_path, runs_of
from ada.frontier.store import save_frontier
from ada.image_tokens.amount import AUTO
from ada.scheduling.units import Units
from llava.errors import OptionError

BUDGETS = [LatencyBudget(1.0), LatencyBudget(0.5)]


def test_model_spec_reads_label_folder_and_planner(checkpoint_h):
    assert ModelSpec.parse(str(checkpoint_h)) == ModelSpec(checkpoint_h.name, checkpoint_h, None)
    spec = ModelSpec.parse(f"my model={checkpoint_h}:last")
    assert (spec.label, spec.folder, spec.planner, spec.slug) == ("my model", checkpoint_h, "last", "my-model")


def test_model_spec_takes_the_planner_of_training_from_the_config(make_adaptive):
    assert ModelSpec.parse(str(make_adaptive("H", planner="even"))).planner == "even"


def test_fingerprint_changes_with_the_frontier_that_auto_chooses_by(checkpoint_h, tmp_path):
    spec = ModelSpec.parse(str(shutil.copytree(checkpoint_h, tmp_path / "model")))
    before = spec.fingerprint()
    save_frontier(spec.folder, [], {})
    assert spec.fingerprint() != before


def test_parse_model_specs_refuses_labels_that_share_a_folder(checkpoint_h):
    with pytest.raises(OptionError, match="names 'a b' twice; give each model another label"):
        parse_model_specs([f"a b={checkpoint_h}", f"a-b={checkpoint_h}"])


def test_runs_of_a_model_with_its_own_planner_leave_out_the_others():
    runs = runs_of(ModelSpec("m", Path("m"), "last"), ["learned", "even"], BUDGETS)
    assert [(run.planner, run.budget.fraction) for run in runs] == [("last", 1.0), ("last", 0.5)]


def test_runs_share_a_file_where_no_planner_has_a_choice():
    units = Units("H", num_layers=4, num_prefix_layers=2, num_switches=2, rank=1)
    names = [Run("m", planner, budget).file_name(units) for planner in ("learned", "even") for budget in BUDGETS]
    assert names == ["any-1.jsonl", "any-0.5.jsonl"] * 2, "of 4 tunable units all, or none"


def test_runs_share_no_file_where_image_tokens_pay_for_units():
    """A budget at the prefix grants no units, and ``auto`` buys some by leaving out image tokens."""
    units = Units("H", num_layers=4, num_prefix_layers=2, num_switches=2, rank=1)
    names = [Run("m", planner, budget).file_name(units, AUTO) for planner in ("learned", "even") for budget in BUDGETS]
    assert names == ["any-1.jsonl", "learned-0.5.jsonl", "any-1.jsonl", "even-0.5.jsonl"]


def test_run_by_path_is_the_first_run_of_each_file():
    first, second, third = (Run("m", planner, BUDGETS[0]) for planner in ("learned", "even", "last"))
    paths = {first: Path("any"), second: Path("any"), third: Path("last")}
    assert run_by_path(paths) == {Path("any"): first, Path("last"): third}
