"""Weights that cannot be cut, and hooks that other libraries hang on modules: masked, exact, and said."""

from __future__ import annotations

import copy

import pytest
import torch
from accelerate import cpu_offload
from accelerate.hooks import attach_execution_device_hook
from torch import nn

from ada.engine.support import reason_of_model
from ada.execution.layer_weights import can_cut

PROMPT = torch.tensor([[1, 17, -200, 60, 7]])
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


class QuantisedLinear(nn.Linear):
    """Stands for bitsandbytes' 8-bit layers: whole numbers and a scale, not a matrix that could be cut."""

    @classmethod
    def of(cls, linear: nn.Linear) -> QuantisedLinear:
        layer = cls(linear.in_features, linear.out_features, bias=linear.bias is not None)
        layer.scale = linear.weight.detach().abs().amax() / 127
        full = (linear.weight.detach() / layer.scale).round().to(torch.int8)
        layer.weight = nn.Parameter(full, requires_grad=False)
        return layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight.to(x.dtype) * self.scale, self.bias)


def quantise(model: nn.Module, kind: type[QuantisedLinear] | None = QuantisedLinear) -> nn.Module:
    """A copy with every projection quantised; with ``kind`` None, as plain layers of the rounded values."""
    model = copy.deepcopy(model)
    for layer in model.model.layers:
        for part in (layer.self_attn, layer.mlp):
            for name, linear in part.named_children():
                if isinstance(linear, nn.Linear):
                    made = QuantisedLinear.of(linear)
                    if kind is None:
                        rounded = nn.Linear(linear.in_features, linear.out_features, bias=False)
                        rounded.weight.data = made.weight.float() * made.scale
                        made = rounded
                    setattr(part, name, made)
    return model


def ask(model: nn.Module, pixels: torch.Tensor, budget: float):
    settings = {"max_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    return model.generate(PROMPT, images=pixels[:1], latency_budget=budget, **settings)


@pytest.mark.parametrize("kind", ["H", "L"])
def test_quantised_weights_are_masked_and_layers_still_skipped(make_llava, pixels, kind) -> None:
    plain = quantise(make_llava(kind), kind=None)
    quantised = quantise(plain)
    assert not can_cut(quantised.model.layers[3]) and can_cut(plain.model.layers[3])
    masked = 0
    for budget in (0.01, 0.6, 0.7, 0.9, 1.0):
        ran: list[int] = []
        handles = [
            layer.mlp.register_forward_hook(lambda *_, index=index, ran=ran: ran.append(index))
            for index, layer in enumerate(quantised.model.layers)
        ]
        ours, expected = ask(quantised, pixels, budget), ask(plain, pixels, budget)
        for handle in handles:
            handle.remove()
        assert ours.execution_plan == expected.execution_plan and torch.equal(ours.sequences, expected.sequences)
        torch.testing.assert_close(torch.stack(ours.logits), torch.stack(expected.logits), atol=1e-3, rtol=1e-3)
        on = {index for index, layer in enumerate(ours.execution_plan.layers) if not layer.is_empty}
        assert set(ran) == on, "an empty layer is skipped, quantised or not"
        partial = {index for index in on if not ours.execution_plan.is_full(index)}
        assert ours.report.masked_layers == len(partial) and expected.report.masked_layers == 0
        assert ("H saves no time" in ours.report.summary()) == bool(partial)
        assert "saves no time" not in expected.report.summary()
        if partial:
            assert "quantised" in ours.report.to_json()["masking"]
            assert sum(ours.report.prefill_flops.values()) > sum(expected.report.prefill_flops.values())
        else:
            assert ours.report.prefill_flops == expected.report.prefill_flops
        masked += len(partial)
    assert (masked > 0) == (kind == "H")


@pytest.mark.parametrize("kind", ["H", "L"])
def test_accelerates_device_hooks_do_not_undo_a_plan(make_llava, pixels, kind) -> None:
    """With device_map over several GPUs, accelerate sets a forward on each module, bound to the original."""
    model = make_llava(kind)
    expected = ask(model, pixels, 0.7)
    for layer in model.model.layers:
        attach_execution_device_hook(layer, "cpu")
    assert "forward" in vars(model.model.layers[3].self_attn), "the hooks are those that this test is about"
    model.narrow_cache.clear()
    ours = ask(model, pixels, 0.7)
    assert torch.equal(torch.stack(ours.logits), torch.stack(expected.logits)) and ours.report.masked_layers == 0


def test_offloaded_weights_are_masked(make_llava, pixels) -> None:
    model = make_llava("H")
    expected = ask(model, pixels, 0.7)
    for layer in model.model.layers:
        cpu_offload(layer, execution_device=torch.device("cpu"))
    ours = ask(model, pixels, 0.7)
    assert ours.execution_plan == expected.execution_plan and torch.equal(ours.sequences, expected.sequences)
    assert ours.report.masked_layers > 0 and "offloaded" in ours.report.masking


@pytest.mark.parametrize("name", ["model.embed_tokens", "model.norm", "lm_head"])
def test_engine_refuses_a_model_with_a_part_on_another_device(make_llava, name) -> None:
    model = make_llava("H")
    assert reason_of_model(model) is None
    model.get_submodule(name).to("meta")
    assert "several devices" in (reason_of_model(model) or "")
