"""The cost model: its operations are the report's, its times the roof's, its properties those of budgets."""

import itertools
import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ada.cost.__main__ import main, parse_arguments, report
from ada.cost.estimate import estimate
from ada.cost.flops import decode_flops, prefill_flops
from ada.cost.hardware import HARDWARE, Hardware, hardware_named
from ada.cost.plans import heads_of, plan_of_budget, plan_of_heads
from ada.cost.products import Product, linear
from ada.cost.roofline import seconds
from ada.cost.sizes import sizes_of

SIZES = {(name, kind): sizes_of(name, kind) for name in ("llama-7b", "llama-13b") for kind in "HL"}


def plan_for(sizes, budget, first_token_s=None):
    return plan_of_budget(sizes.units, budget, first_token_s)


BUDGETS = st.integers(50, 100).map(lambda percent: f"{percent}%")


def test_a_product_by_hand():
    device = Hardware("toy", bandwidth=100.0, flops=1000.0, memory=1e9, source="")
    assert linear(2, 3, 5) == Product(flops=60, elements=15 + 2 * 8)
    assert seconds(Product(1000, 10), device) == 1.0, "arithmetic: 1000 operations; moving 20 bytes takes 0.2 s"
    assert seconds(Product(10, 100), device) == 2.0, "moving 200 bytes; the arithmetic takes 0.01 s"


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(SIZES)), BUDGETS, st.integers(1, 1500), st.integers(1, 6), st.sampled_from(sorted(HARDWARE))
)
def test_operations_are_those_of_the_report(key, budget, prompt, gen, device):
    """``flops.py``, which is held against torch's own counter, by part."""
    sizes = SIZES[key]
    plan = plan_for(sizes, budget)
    found = estimate(sizes, plan, HARDWARE[device], prompt, gen)
    expected = prefill_flops(
        sizes.config,
        sizes.units,
        plan,
        prompt,
        num_images=1,
        vision=sizes.vision,
        vision_layers=sizes.vision_layers,
        projector=sizes.projector,
        image_tokens=sizes.image_tokens,
    )
    names = {"head": "lm_head"}
    assert {names.get(part, part): cost.flops for part, cost in found.prefill.items()} == expected
    if gen > 1:
        means = [decode_flops(sizes.config, sizes.units, plan, prompt + step) for step in range(1, gen)]
        for part, cost in found.decode.items():
            assert cost.flops == sum(step[names.get(part, part)] for step in means) / len(means)
    arithmetic = sum(expected.values()) / HARDWARE[device].flops
    traffic = sum(cost.bytes for cost in found.prefill.values()) / HARDWARE[device].bandwidth
    assert max(arithmetic, traffic) * (1 - 1e-9) <= found.first_token_s <= arithmetic + traffic


@pytest.mark.parametrize("kind", "HL")
def test_less_budget_never_costs_more(kind):
    sizes, device = SIZES["llama-7b", kind], HARDWARE["A100-80G"]
    rows = [estimate(sizes, plan_for(sizes, str(b / 100)), device, 640, 3) for b in range(50, 101, 2)]
    for less, more in itertools.pairwise(rows):
        assert less.first_token_s <= more.first_token_s and less.token_s <= more.token_s
        assert less.memory["kv_cache"] <= more.memory["kv_cache"]
    full = rows[-1]
    assert full.memory["narrow_layers"] == 0
    assert full.memory["decoder"] == 2 * (6_738_415_616 - 266_240), "the 7B's parameters, but its norms, in bfloat16"
    assert full.memory["kv_cache"] == 2 * 2 * 32 * 4096 * 642


def test_a_checkpoint_and_a_plan_of_it(adaptive_checkpoint, tmp_path):
    file = tmp_path / "plan.json"
    sizes = sizes_of(str(adaptive_checkpoint))
    plan = plan_for(sizes, "0.75")
    file.write_text(json.dumps({"plan": plan.to_json()}))
    flags = ["--model", str(adaptive_checkpoint), "--prompt-tokens", "20", "--json"]
    assert report(parse_arguments([*flags, "--plan", str(file)])) == report(
        parse_arguments([*flags, "--latency-budget", "0.75"])
    )


def test_the_program(root):
    command = [sys.executable, "-m", "ada.cost", "--hardware", "rtx 4090", "--latency-budget", "60%"]
    shown = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert shown.returncode == 0 and "vision_tower" in shown.stdout and "peak memory" in shown.stdout, shown.stderr
    said = subprocess.run([*command, "--json"], cwd=root, capture_output=True, text=True)
    figures = json.loads(said.stdout)
    assert figures["hardware"] == "RTX-4090" and figures["executed_share"] == pytest.approx(0.59, abs=0.01)
    totals = figures["totals"]
    assert totals["answer_s"] == pytest.approx(totals["time_to_first_token_s"] + 31 * totals["token_s"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--hardware", "B200"], "--hardware is 'B200'; expected one of V100"),
        (["--model", "gpt"], "--model is 'gpt'"),
        (["--latency-budget", "1.5"], "1.5"),
        (["--latency-budget", "0ms"], "0ms"),
        (["--latency-budget=-5ms"], "-5ms"),
        (["--latency-budget", "3 parsecs"], "3 parsecs"),
        (["--latency-budget", "1ms"], "to the first token here"),
        (["--images", "-1"], "--images is -1"),
        (["--weight-bits", "8"], "need --as-published"),
        (["--prompt-tokens", "0"], "--prompt-tokens is 0"),
        (["--gen-tokens", "-1"], "--gen-tokens is -1"),
        (["--plan", "nowhere.json"], "nowhere.json"),
        (["--as-published", "--hardware", "B200"], "not in the published table"),
    ],
)
def test_bad_input(flags, message, capsys):
    assert main(flags) == 2
    assert message in capsys.readouterr().err


def test_a_plan_of_another_model(adaptive_checkpoint, tmp_path, capsys):
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(plan_for(SIZES["llama-7b", "H"], "0.6").to_json()))
    assert main(["--model", str(adaptive_checkpoint), "--plan", str(file)]) == 2
    assert "the model has 4 of 4" in capsys.readouterr().err


def test_names_of_hardware():
    assert hardware_named("nvidia_A6000").name == "A6000" == hardware_named("RTX A6000").name
    for name, row in {"GeForce RTX 3090": "RTX-3090", "a100": "A100-80G", "jetson orin": "Jetson-AGX-Orin"}.items():
        assert hardware_named(name).name == row
    assert all(row.source and row.bandwidth < row.flops for row in HARDWARE.values())


@pytest.mark.parametrize("kind", "HL")
def test_a_time_grants_the_most_that_fits(kind, capsys):
    flags = ["--scheduler-type", kind, "--hardware", "V100", "--prompt-tokens", "600", "--gen-tokens", "2"]
    times = [report(parse_arguments([*flags, "--latency-budget", f"{b}%"]))["totals"] for b in range(50, 101)]
    times = sorted({total["time_to_first_token_s"] * 1000 for total in times})
    for ms in (times[0], times[len(times) // 2], times[-1], times[-1] * 9):
        found = report(parse_arguments([*flags, "--latency-budget", f"{ms * 1.0001}ms"]))["totals"]
        assert found["time_to_first_token_s"] * 1000 == pytest.approx(max(t for t in times if t <= ms * 1.0001))
    capsys.readouterr()
    assert main([*flags, "--latency-budget", f"{times[0] * 0.99}ms"]) == 2
    assert f"takes {times[0]:.4g} ms" in capsys.readouterr().err


def test_a_list_of_heads_is_a_plan(tmp_path, capsys):
    file, sizes = tmp_path / "plan.json", SIZES["llama-7b", "L"]
    flags = ["--scheduler-type", "L", "--hardware", "V100", "--prompt-tokens", "70", "--gen-tokens", "3"]
    for as_published in ([], ["--as-published"]):
        file.write_text(json.dumps([32] * 16 + [32, -1] * 8))
        listed = report(parse_arguments([*flags, *as_published, "--plan", str(file)]))
        heads = [32] * 16 + [32, 0] * 8
        file.write_text(json.dumps({"plan": plan_of_heads(heads, sizes).to_json()}))
        assert report(parse_arguments([*flags, *as_published, "--plan", str(file)])) == listed
        assert listed["layers"] == 24 and listed["executed_share"] == 0.75
        assert heads_of(plan_of_heads(heads, sizes), sizes) == heads
    capsys.readouterr()
    half = {"num_switches": 32, "layers": [{"heads": [0], "neuron_groups": []}] * 32}
    for content, message in (
        ([32] * 31, "not a list of 32 numbers up to 32"),
        ([33] * 32, "not a list of 32 numbers up to 32"),
        ([-1] * 32, "at least one runs"),
        ("full", "holds 'full'"),
        (half, "as many neuron groups as heads"),
    ):
        file.write_text(json.dumps(content))
        assert main([*flags, "--as-published", "--plan", str(file)]) == 2
        assert message in capsys.readouterr().err
    file.write_text(json.dumps([20.5] * 32))
    assert main([*flags, "--plan", str(file)]) == 2
    assert "switches 1 at a time" in capsys.readouterr().err


def test_the_config_of_a_language_model_is_enough(tmp_path):
    fields = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4}
    fields |= {"num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 50, "tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    found = report(parse_arguments(["--model", str(tmp_path), "--prompt-tokens", "20", "--json"]))
    assert found["prefill"]["vision_tower"]["flops"] == 0 and found["layers"] == 4 and found["fits_in_memory"]
    layer = 64 * 64 * 2 + 64 * 16 * 2 + 3 * 64 * 96
    assert found["peak_memory"]["decoder"] == 2 * (4 * layer + 64 * 50), "one table of tied embeddings"


def test_devices_are_listed(capsys):
    assert main(["--hardware", "list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in HARDWARE)
    assert main(["--hardware", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    wanted = "V100 T4 A10 A100-40G A100-80G H100 L4 L40S A6000 RTX-3090 RTX-4090 Jetson-AGX-Orin M1 Core-i9-13900K"
    assert set(wanted.split()) <= {row["name"] for row in rows} and all(row["source"] for row in rows)


def test_a_model_that_does_not_fit_is_told(capsys):
    assert main(["--model", "llama-13b", "--hardware", "T4"]) == 0
    assert "more than the 16 GB of T4" in capsys.readouterr().out
