"""LLaVA on MPT has no latency budgets: every way to ask for one ends in a message that says so."""

import pytest

from ada.cost.sizes import sizes_of
from ada.options import generation_options
from llava.errors import CheckpointError, OptionError
from llava.model import LlavaMptForCausalLM
from llava.model.loaded_model import open_model


@pytest.fixture(scope="module")
def folder(make_checkpoint):
    return make_checkpoint(LlavaMptForCausalLM)


def test_model_without_a_budget_opens(folder) -> None:
    loaded = open_model({"model_path": str(folder), "device": "cpu"})
    assert isinstance(loaded.model, LlavaMptForCausalLM)
    assert generation_options(loaded.model, {"latency_budget": None}) == {}
    with pytest.raises(OptionError, match=r"not possible with model_type 'llava_mpt'; expected one of llava_llama"):
        generation_options(loaded.model, {"latency_budget": 0.5})


@pytest.mark.parametrize("budget", ["0.5", "120ms"])
def test_budget_raises(folder, budget) -> None:
    with pytest.raises(OptionError, match=r"not possible with model_type 'llava_mpt'.*Leave --latency-budget out"):
        open_model({"model_path": str(folder), "device": "cpu", "latency_budget": budget})


def test_untrained_planner_raises(folder) -> None:
    with pytest.raises(OptionError, match="this model is LlavaMptForCausalLM"):
        open_model({"model_path": str(folder), "device": "cpu", "latency_budget": "0.5", "planner": "even"})


def test_training_a_scheduler_raises(folder, trained, tmp_path) -> None:
    with pytest.raises(OptionError, match="--scheduler_type is 'H', and this model's type 'llava_mpt'"):
        trained(tmp_path / "out", model_name_or_path=folder, version="mpt", scheduler_type="H")


def test_cost_of_a_plan_raises(folder) -> None:
    with pytest.raises(CheckpointError, match="is a llava_mpt; a latency budget needs"):
        sizes_of(str(folder))
