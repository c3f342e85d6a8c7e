"""The states of parameters that upstream's functions collect."""

import pytest
import torch
from torch import nn

from llava.errors import OptionError
from llava.train import train


class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj, self.down_proj = nn.Linear(2, 2), nn.Linear(2, 2)
        self.q_proj.lora_A = nn.ModuleDict({"default": nn.Linear(2, 1, bias=False)})
        self.norm = nn.LayerNorm(2)


@pytest.fixture
def model():
    made = nn.ModuleDict({"layers": Part(), "mm_projector": nn.Linear(2, 2), "vision_tower": Part()})
    made["lm_head"] = nn.Linear(2, 2)
    made["vision_tower"].requires_grad_(False)
    made["layers"].down_proj.requires_grad_(False)
    return made


LORA = {f"{part}.q_proj.lora_A.default.weight" for part in ("layers", "vision_tower")}


@pytest.mark.parametrize("bias", ["none", "all", "lora_only"])
def test_peft_state_holds_the_biases_that_are_asked_for(model, bias):
    state = train.get_peft_state_maybe_zero_3(model.named_parameters(), bias)
    biases = {name for name, _ in model.named_parameters() if name.endswith("bias")}
    expected = {"none": set(), "all": biases, "lora_only": {"layers.q_proj.bias", "vision_tower.q_proj.bias"}}
    assert set(state) == LORA | expected[bias]


def test_peft_state_of_an_unknown_bias_raises(model):
    with pytest.raises(OptionError, match="bias is 'some'; expected none, all or lora_only"):
        train.get_peft_state_maybe_zero_3(model.named_parameters(), "some")


def test_non_lora_state_holds_what_is_trained(model):
    trained = train.get_peft_state_non_lora_maybe_zero_3(model.named_parameters())
    every = train.get_peft_state_non_lora_maybe_zero_3(model.named_parameters(), require_grad_only=False)
    assert set(every) == {name for name, _ in model.named_parameters()} - LORA
    assert set(every) - set(trained) == {
        name for name in every if name.startswith(("vision_tower.", "layers.down_proj"))
    }


def test_adapter_state_holds_copies_of_the_named_parameters(model):
    state = train.get_mm_adapter_state_maybe_zero_3(model.named_parameters(), ["mm_projector", "vision_resampler"])
    assert set(state) == {"mm_projector.weight", "mm_projector.bias"}
    with torch.no_grad():
        before = state["mm_projector.weight"].clone()
        model["mm_projector"].weight.add_(1)
    assert torch.equal(state["mm_projector.weight"], before) and not state["mm_projector.weight"].requires_grad


def test_linear_names_leave_out_tower_projector_and_output(model):
    assert train.find_all_linear_names(model) == ["default", "down_proj", "q_proj"]


def test_maybe_zero_3_takes_upstreams_arguments(model):
    weight = model["lm_head"].weight
    assert torch.equal(train.maybe_zero_3(weight, ignore_status=True, name="lm_head.weight"), weight)
