"""Reordered neurons: the same answers from other rows of weights; and files that are no order."""

import re

import pytest
import torch
from safetensors.torch import save_file

from llava.errors import CheckpointError, OptionError
from llava.model.builder import load_pretrained_model
from llava.model.checkpoint.neuron_order import base_order, read_order, reorder_neurons, write_order

IDS = torch.tensor([[1, 5, 7, 9, 11]])


@pytest.fixture
def model(tiny_checkpoint):
    return load_pretrained_model(str(tiny_checkpoint), None, "any", device="cpu")[1]


def drawn(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    layers, neurons = model.config.num_hidden_layers, model.config.intermediate_size
    return torch.stack([torch.randperm(neurons, generator=generator) for _ in range(layers)])


@torch.no_grad()
def test_the_answer_stays_and_the_neurons_move(model):
    before, order = model(IDS).logits, drawn(model)
    rows = [layer.mlp.gate_proj.weight.clone() for layer in model.get_model().layers]
    inner = []
    model.get_model().layers[0].mlp.down_proj.register_forward_pre_hook(lambda _, given: inner.append(given[0]))
    model(IDS)
    reorder_neurons(model, order, "here")
    torch.testing.assert_close(model(IDS).logits, before, atol=1e-5, rtol=1e-5)
    assert torch.equal(base_order(model), order)
    torch.testing.assert_close(inner[1], inner[0][..., order[0]])
    for layer, index, old in zip(model.get_model().layers, order, rows, strict=True):
        for position, neuron in enumerate(index.tolist()):
            assert torch.equal(layer.mlp.gate_proj.weight[position], old[neuron])


def test_a_file_of_it(model, tmp_path):
    order = drawn(model)
    write_order(tmp_path / "order.safetensors", order)
    assert torch.equal(read_order(tmp_path / "order.safetensors"), order)


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [
        ({"other": torch.zeros(2, 3)}, "found no such tensor"),
        ({"neurons": torch.zeros(2, 3)}, "found torch.float32 of shape (2, 3)"),
        ({"neurons": torch.zeros(3, dtype=torch.int32)}, "of shape (3,)"),
        ({"neurons": torch.tensor([[0, 1, 2], [0, 2, 2]])}, "lacks a neuron, or has one twice"),
        ({"neurons": torch.tensor([[1, 2, 3]])}, "lacks a neuron, or has one twice"),
    ],
)
def test_files_that_are_no_order(tmp_path, tensors, complaint):
    save_file(tensors, tmp_path / "order.safetensors")
    with pytest.raises(CheckpointError, match=re.escape(complaint)):
        read_order(tmp_path / "order.safetensors")


def test_orders_of_other_models(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    order = drawn(model)
    with pytest.raises(CheckpointError, match=rf"here is of {len(order) - 1} layers; the model has {len(order)}"):
        reorder_neurons(model, order[1:], "here")
    with pytest.raises(CheckpointError, match=r"here is of 3 neurons a layer; the model has \d+"):
        reorder_neurons(model, torch.arange(3).expand(len(order), 3), "here")
    assert base_order(model) is None
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_quantised_weights_are_refused(tiny_checkpoint):
    model = load_pretrained_model(str(tiny_checkpoint), None, "any", device="cpu", load_8bit=True)[1]
    with pytest.raises(OptionError, match="quantised weights cannot be reordered"):
        reorder_neurons(model, drawn(model), "here")
