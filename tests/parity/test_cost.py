"""The published cost code's figures: operations, seconds and bytes of 7B and 13B plans."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from ada.cost.__main__ import parse_arguments, report
from ada.cost.published.figures import Speed, layer_step, published_figures
from ada.cost.published.layer import LayerPass, Setting
from llava.errors import OptionError

MODELS = {"7b": "llama-7b", "13b": "llama-13b", "gqa-8kv": "analyzer_configs/llama-gqa-8kv"}  # name, or folder
BITS = {"w": "--weight-bits", "a": "--activation-bits", "kv": "--cache-bits", "bs": "--batch-size"}
WITHIN = 1e-5  # 0.01 is asked for
SUMMED = {"memory_consumption": "summed_memory"}  # the published code adds memory up over the steps


@pytest.fixture(scope="module")
def recorded(golden):
    return json.loads((golden / "ada" / "analyzer.json").read_text())


@pytest.fixture
def flags_of(golden, recorded, tmp_path):
    """``flags_of(row)``: the command line of a recorded row, its plan in a file."""

    def make(row: dict) -> list[str]:
        plan = row["plan"] if isinstance(row["plan"], list) else recorded["plans"][row["model"]][row["plan"]]
        (tmp_path / "plan.json").write_text(json.dumps(plan))
        model = MODELS[row["model"]]
        flags = ["--model", str(golden / "ada" / model) if "/" in model else model, "--hardware", row["hardware"]]
        flags += ["--prompt-tokens", str(row["prompt_len"]), "--gen-tokens", str(row["gen_len"])]
        options = dict(row.get("options", {}))
        fused = ["--flash-attention"] if options.pop("fa", False) else []
        flags += [text for name, value in options.items() for text in (BITS[name], str(value))]
        return [*flags, *fused, "--plan", str(tmp_path / "plan.json"), "--as-published", "--json"]

    return make


@pytest.fixture(scope="module")
def rows(recorded):
    """Every recorded row; how many there are, and of which models, is the folder's own affair."""
    rows = [*recorded["rows"], *recorded.get("extra_rows", [])]
    assert rows, "the folder records no figures"
    return rows


def test_every_recorded_figure(rows, flags_of):
    for row in rows:
        found = report(parse_arguments(flags_of(row)))
        for name in ("flops", "avg_flops", "prefill_flops", "prefill_time", *SUMMED, "prefill_memory_consumption"):
            assert found[SUMMED.get(name, name)] == pytest.approx(row[name], rel=WITHIN), (row, name)
        peak = found["memory_consumption"]
        assert row["prefill_memory_consumption"] <= peak <= row["memory_consumption"]
        assert (peak == row["memory_consumption"]) == (row["gen_len"] == 1), "a peak, not a sum"


def test_every_recorded_operation_of_a_layer(recorded):
    """Seconds of a decode step too, which no recorded row has."""
    config = SimpleNamespace(
        hidden_size=4096, num_attention_heads=32, num_key_value_heads=32, intermediate_size=11008, vocab_size=32000
    )
    speed = Speed.of("V100", Setting())
    for phase, queries in (("prefill", 640), ("decode", 1)):
        parts = recorded["one_layer_24_heads_prompt_640_V100"][phase]
        layer = LayerPass(config, Setting(), 24, queries, 640, decode=phase == "decode")
        operations = layer.operations()
        assert set(operations) == set(parts)
        for name, part in parts.items():
            operation = operations[name]
            assert operation.flops == part["OPs"] and operation.moved == part["memory_access"], name
            assert operation.weights == part["load_weight"] and operation.read == part["load_act"], name
            assert operation.cached == part["load_kv_cache"], name
            assert operation.written == part["store_act"] and operation.stored == part["store_kv_cache"], name
            assert speed.seconds(operation) == pytest.approx(part["inference_time"], rel=1e-9)
        step = layer_step(layer, speed)
        assert step.seconds == pytest.approx(sum(part["inference_time"] for part in parts.values()), rel=1e-9)
        assert step.flops == sum(part["OPs"] for part in parts.values())


def test_the_program(rows, flags_of, root):
    row = rows[-1]
    command = [sys.executable, "-m", "ada.cost", *flags_of(row)]
    ran = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["prefill_time"] == pytest.approx(row["prefill_time"], rel=WITHIN)


def test_the_published_example(golden):
    """Its figures are means over prompts of 644.28 positions, so one of 644 is a little below."""
    stated = json.loads((golden / "ada" / "readme_fit.json").read_text())["readme_figures"]
    flags = "--model llama-7b --scheduler-type L --latency-budget 0.85 --hardware nvidia_V100 --prompt-tokens 644"
    found = report(parse_arguments([*flags.split(), "--gen-tokens", "2", "--as-published"]))
    for name, value in stated.items():
        assert found[SUMMED.get(name, name)] == pytest.approx(value, rel=0.002), name


def test_hardware_that_is_not_in_the_published_table():
    config = SimpleNamespace(
        hidden_size=64, num_attention_heads=2, num_key_value_heads=2, intermediate_size=96, vocab_size=50
    )
    with pytest.raises(OptionError, match=r"nvidia_B200.*nvidia_V100"):
        published_figures(config, [2], "nvidia_B200", 640, 1)
    with pytest.raises(OptionError, match="no 8-bit speed"):
        published_figures(config, [2], "intel_13900k", 640, 1, Setting(1, 8, 8, 8))
