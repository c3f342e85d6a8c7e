"""The plan to estimate: from a file, or even for a budget."""

import json

import pytest

from ada.cost.__main__ import main, parse_arguments, report
from ada.cost.plans import heads_of, plan_of_budget, plan_of_heads
from ada.cost.sizes import sizes_of

SIZES = {kind: sizes_of("llama-7b", kind) for kind in "HL"}
FLAGS = ["--scheduler-type", "L", "--hardware", "V100", "--prompt-tokens", "70", "--gen-tokens", "3"]
HALF_LAYERS = {"num_switches": 32, "layers": [{"heads": [0], "neuron_groups": []}] * 32}


@pytest.fixture
def plan_file(tmp_path):
    """``plan_file(content)``: flags that read it as JSON."""

    def write(content) -> list[str]:
        (tmp_path / "plan.json").write_text(json.dumps(content))
        return ["--plan", str(tmp_path / "plan.json")]

    return write


def test_plan_of_a_report_costs_the_same_as_its_budget(adaptive_checkpoint, plan_file):
    units = sizes_of(str(adaptive_checkpoint)).units
    plan = plan_file({"plan": plan_of_budget(units, "0.75", None).to_json()})
    flags = ["--model", str(adaptive_checkpoint), "--prompt-tokens", "20", "--json"]
    assert report(parse_arguments([*flags, *plan])) == report(parse_arguments([*flags, "--latency-budget", "0.75"]))


def test_plan_of_another_model_is_refused(adaptive_checkpoint, plan_file, capsys):
    plan = plan_file(plan_of_budget(SIZES["H"].units, "0.6", None).to_json())
    assert main(["--model", str(adaptive_checkpoint), *plan]) == 2
    assert "the model has 4 of 4" in capsys.readouterr().err


@pytest.mark.parametrize("kind", "HL")
def test_time_budget_grants_the_maximum_that_fits(kind, capsys):
    flags = ["--scheduler-type", kind, "--hardware", "V100", "--prompt-tokens", "600", "--gen-tokens", "2"]
    times = [report(parse_arguments([*flags, "--latency-budget", f"{b}%"]))["totals"] for b in range(50, 101)]
    times = sorted({total["time_to_first_token_s"] * 1000 for total in times})
    for ms in (times[0], times[len(times) // 2], times[-1], times[-1] * 9):
        found = report(parse_arguments([*flags, "--latency-budget", f"{ms * 1.0001}ms"]))["totals"]
        assert found["time_to_first_token_s"] * 1000 == pytest.approx(max(t for t in times if t <= ms * 1.0001))
    capsys.readouterr()
    assert main([*flags, "--latency-budget", f"{times[0] * 0.99}ms"]) == 2
    assert f"takes {times[0]:.4g} ms" in capsys.readouterr().err


@pytest.mark.parametrize("published", [[], ["--as-published"]], ids=["ours", "published"])
def test_list_of_heads_costs_the_same_as_its_plan(plan_file, published, capsys):
    heads = [32] * 16 + [32, 0] * 8
    flags = [*FLAGS, *published]
    listed = report(parse_arguments([*flags, *plan_file([32] * 16 + [32, -1] * 8)]))
    plan = plan_of_heads(heads, SIZES["L"]).to_json()
    assert report(parse_arguments([*flags, *plan_file({"plan": plan})])) == listed
    assert listed["layers"] == 24 and listed["executed_share"] == 0.75


def test_heads_of_a_plan_of_heads_are_the_same():
    heads = [32] * 16 + [32, 0] * 8
    assert heads_of(plan_of_heads(heads, SIZES["L"]), SIZES["L"]) == heads


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([32] * 31, "not a list of 32 numbers up to 32"),
        ([33] * 32, "not a list of 32 numbers up to 32"),
        ([-1] * 32, "at least one runs"),
        ("full", "holds 'full'"),
        (HALF_LAYERS, "as many neuron groups as heads"),
    ],
)
def test_other_content_is_refused(plan_file, content, message, capsys):
    assert main([*FLAGS, "--as-published", *plan_file(content)]) == 2
    assert message in capsys.readouterr().err


def test_heads_that_are_no_multiple_of_a_switch_are_refused(plan_file, capsys):
    assert main([*FLAGS, *plan_file([20.5] * 32)]) == 2
    assert "switches 1 at a time" in capsys.readouterr().err
