"""The benchmark's cases do what their names say; its seconds are nobody's business here."""

import json
import sys

import pytest
import torch

from ada.bench import batching as bench_batch
from ada.bench import prefill_decode as bench
from ada.bench import quantized as bench_quantised
from ada.bench.selection import layers_one_by_one, switches_one_by_one, time_selection
from ada.scheduling.execution_plan import LayerPlan

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 50,
    "max_position_embeddings": 128,
}


@pytest.fixture
def small(monkeypatch) -> None:
    monkeypatch.setattr(bench, "SHAPES_7B", SMALL)


@torch.inference_mode()
def test_cases_run_the_share_that_they_state(small) -> None:
    models = bench.Models.make(8)
    embeds = torch.randn(1, 20, 64, dtype=torch.bfloat16)
    token = torch.zeros(1, 1, dtype=torch.long)
    plain = bench.plain_case(models.plain)
    expected = plain.prefill(embeds).last_hidden_state[:, -1]
    for case in bench.overlay_cases(models, (0.85, 0.6)):
        kind, budget = case.name.split()
        state = case.prefill(embeds)
        case.decode(state, token)
        units = models.ada[kind].units.total
        assert case.share() == int(units * float(budget)) / units
        lengths = [layer.get_seq_length() for layer in state.past_key_values.layers]
        assert max(lengths) == 20 + 1 + 1, "prompt, latency token, one decoded token"
        assert not torch.equal(state.last_hidden_state[:, -1], expected), "the latency token's position is read"


def test_the_program_prints_a_table_and_json(small, monkeypatch, capsys) -> None:
    sizes = ["--layers", "8", "--positions", "16", "--rounds", "2", "--decode-steps", "2"]
    monkeypatch.setattr(sys, "argv", ["bench", *sizes])
    monkeypatch.setattr(
        bench, "time_selection", lambda **sizes: time_selection(**{**sizes, "layers": 2, "switches": 16, "rounds": 1})
    )
    bench.main()
    shown = capsys.readouterr().out
    facts = json.loads(shown.strip().splitlines()[-1])
    names = [row["case"] for row in facts["cases"]]
    assert names == ["plain", *(f"{kind} {budget:g}" for kind in "LH" for budget in (1, 0.85, 0.75, 0.6, 0.5))]
    assert all(row[phase]["ratio"] > 0 for row in facts["cases"] for phase in bench.PHASES)
    assert facts["cases"][0]["prefill"]["ratio"] < 10, "the plain model against itself"
    assert all(name in shown for name in names)


def test_the_slow_ways_spend_their_units() -> None:
    granted = torch.tensor([0, 1, 3])
    logits = torch.randn(3, 4, requires_grad=True)
    gates = layers_one_by_one(logits, granted)
    assert torch.equal(gates.sum(1).long(), granted)
    logits = torch.randn(3, 4, 2, 8, requires_grad=True)
    gates = switches_one_by_one(logits, granted, 4)
    assert torch.equal(gates.sum((2, 3)).sum(1).round().long(), granted * 2 * 4)
    gates.sum().backward()
    assert logits.grad is not None


@torch.inference_mode()
def test_together_and_apart_read_and_say_the_same(small) -> None:
    model = bench.Models.make(8).ada["H"].float()
    prompts = [torch.randn(1, 12, 64) for _ in bench_batch.OWN]
    requests = [bench_batch.Request(model, *pair) for pair in zip(prompts, bench_batch.OWN, strict=True)]
    assert len({request.plan for request in requests}) == len(requests)
    ways = bench_batch.steps(model, requests)
    together = ways["together"]().last_hidden_state
    for place, request in enumerate(requests):
        alone = model.model(
            input_ids=torch.zeros(1, 1, dtype=torch.long),
            past_key_values=request.output.past_key_values,
            execution=request.execution,
            use_cache=True,
        ).last_hidden_state
        torch.testing.assert_close(together[place], alone[0], atol=1e-4, rtol=1e-4)


def test_the_batch_program_prints_every_case(small, monkeypatch, capsys) -> None:
    sizes = ["--layers", "4", "--positions", "8", "--rounds", "1", "--rows", "1", "3", "--decode-steps", "1"]
    monkeypatch.setattr(sys, "argv", ["bench", "batch", *sizes])
    with pytest.raises(SystemExit) as ended:
        bench.main()
    assert ended.value.code == 0
    lines = json.loads(capsys.readouterr().out.strip().splitlines()[-1])["batches"]
    cases = [(line["rows"], line["plans"]) for line in lines]
    assert cases == [(count, case) for count in (1, 3) for case in bench_batch.CASES]
    assert all(line["decode"]["times_faster"] > 0 for line in lines)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantised_layer_masked_is_its_dequantised_self_cut(bits) -> None:
    """The two ways that are timed do the same: within what 8-bit products round off their inputs."""
    sizes = {"hidden_size": 2048, "intermediate_size": 128, "num_attention_heads": 32}
    with torch.inference_mode():
        layer, rotary = bench_quantised.dense_layer(sizes)
        whole, values = bench_quantised.quantised(layer, bits)
        kept = (0, 3, 4, 17)
        both, _, extra = bench_quantised.ways(whole, values, LayerPlan(kept, kept))
        hidden = torch.randn(1, 6, 2048, dtype=torch.bfloat16)
        angles = rotary(hidden, torch.arange(6)[None])
        masked, cut = (both[name](hidden, angles) - hidden for name in ("masked", "cut"))
    assert extra == 2 * (4 * 2048 * 256 + 3 * 2048 * 16), "an eighth of the seven matrices, in bfloat16"
    assert (masked - cut).norm() < 0.03 * cut.norm()
    (line,) = bench_quantised.measure([bits], [0.5], 4, 1, sizes)
    assert line["share"] == 0.5 and min(line[phase]["times_faster"] for phase in ("prefill", "decode")) > 0
