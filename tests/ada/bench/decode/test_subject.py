"""What is timed: prompts, and stacks in a 7B model's proportions."""

import torch

from ada.bench.decode import subject
from ada.bench.decode.step_bytes import DecoderBytes
from ada.bench.decode.subject import Setting
from ada.scheduling.execution_plan import ExecutionPlan


def test_output_layer_of_a_short_stack_has_the_share_that_it_has_at_7b(monkeypatch) -> None:
    made: list[dict] = []
    monkeypatch.setattr(subject.Models, "make", lambda *given: made.append(given[-1]) or subject.Models(None, {}))
    for layers in (4, 32):
        subject.stack(layers, torch.device("cpu"))

    def share(sizes: dict, layers: int) -> float:
        heads = sizes["num_attention_heads"]
        head_dim = sizes["hidden_size"] // heads
        size = DecoderBytes(
            sizes["hidden_size"], sizes["intermediate_size"], heads, head_dim, heads, sizes["vocab_size"], 2
        )
        nothing = ExecutionPlan.from_gates(torch.zeros(layers, 2, heads))
        return size.weights([nothing]) / size.weights([ExecutionPlan.full(layers, heads)])

    assert [sizes["vocab_size"] for sizes in made] == [4000, 32000]
    assert share(made[0], 4) == share(made[1], 32) < 0.03


def test_prompts_are_the_same_for_the_same_seed_and_differ_by_row(make_subject) -> None:
    prompts, setting = make_subject("H").prompts, Setting(1.0, 12, 3)
    assert prompts(setting).shape == (3, 12)
    assert torch.equal(prompts(setting), prompts(setting)) and not torch.equal(prompts(setting), prompts(setting, 1))
    assert not torch.equal(*prompts(setting)[:2])


def test_both_kinds_of_a_stack_have_the_same_weights(make_subject) -> None:
    heads, layers = make_subject("H").model, make_subject("L").model
    first, second = (model.model.layers[2].mlp.up_proj.weight for model in (heads, layers))
    assert first.data_ptr() == second.data_ptr()
    assert (heads.units.kind, layers.units.kind) == ("H", "L")
