"""The maskable layer against transformers' own: bit-equal without a plan; masked and narrow agree under one."""

from __future__ import annotations

import copy

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from fixtures.training import layer_runs
from torch.overrides import TorchFunctionMode
from transformers import DynamicCache

from ada.execution.call_state import Execution
from ada.execution.maskable_layer import GatedLinear, MaskableLayer, channel_gates, install, uninstall
from ada.execution.narrow_cache import NarrowCache
from ada.scheduling.execution_plan import group_bounds
from ada.scheduling.units import Units


class HostTensors(TorchFunctionMode):
    """Records calls that make a tensor of values that the host has."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.tensor, torch.as_tensor, torch.from_numpy):
            self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


GRID = Units("H", 4, 2, 4, 1)


def execution(gates: torch.Tensor, narrow: bool, grid: Units = GRID, train: bool = False) -> Execution:
    cache = NarrowCache(1 << 30) if narrow else None
    return Execution(grid, torch.tensor([0]), lambda *_: gates, None, cache, train=train)


def random_gates(seed: int, rows: int = 1, switches: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(rows, 2, 2, switches, generator=generator) < 0.5).float()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_a_plan_and_under_a_full_plan_it_is_bit_equal(make_decoder, attention, dtype) -> None:
    model = make_decoder(attention=attention, dtype=dtype)
    plain = copy.deepcopy(model)
    install(model.layers)
    x = torch.randn(2, 7, 32, dtype=dtype)
    expected = plain(inputs_embeds=x).last_hidden_state
    assert torch.equal(model(inputs_embeds=x).last_hidden_state, expected)
    full = torch.ones(2, 2, 2, 4)
    for narrow in (True, False):
        out = model(inputs_embeds=x, execution=execution(full, narrow)).last_hidden_state
        assert torch.equal(out, expected)


@torch.no_grad()
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("key_value_heads", [8, 2])
def test_masked_narrow_and_zeroed_weights_agree(make_decoder, attention, bias, key_value_heads) -> None:
    """Independent of both: a plain model whose switched-off columns are zero, with the biases of empty blocks over."""
    for seed in range(6):
        plain = make_decoder(heads=8, key_value_heads=key_value_heads, attention=attention, bias=bias)
        model = copy.deepcopy(plain)
        install(model.layers)
        gates = random_gates(seed, switches=key_value_heads)
        for layer, gate in zip(plain.layers[2:], gates[0], strict=True):
            for linear, component in ((layer.self_attn.o_proj, gate[0]), (layer.mlp.down_proj, gate[1])):
                bounds = group_bounds(linear.in_features, key_value_heads)
                for (start, end), on in zip(bounds, component, strict=True):
                    linear.weight.data[:, start:end] *= on
                if bias and not component.any():
                    linear.bias.data.zero_()
        x = torch.randn(1, 9, 32)
        expected = plain(inputs_embeds=x).last_hidden_state
        grid = Units("H", 4, 2, key_value_heads, 1)
        for narrow in (True, False):
            out = model(inputs_embeds=x, execution=execution(gates, narrow, grid)).last_hidden_state
            torch.testing.assert_close(out, expected, atol=2e-5, rtol=1e-4)  # another order of float32 sums


@pytest.mark.parametrize(("channels", "groups"), [(8, 4), (45, 4), (7, 7), (43, 2), (3, 4)])
def test_each_channel_has_the_gate_of_its_group(channels: int, groups: int) -> None:
    gates = torch.randn(2, groups)
    spread = channel_gates(gates, channels)
    assert spread.shape == (2, channels)
    for group, (start, end) in enumerate(group_bounds(channels, groups)):
        assert (spread[:, start:end] == gates[:, group, None]).all()


@torch.no_grad()
def test_gated_projection_makes_no_tensor_of_host_values() -> None:
    """On a GPU each would be a copy that the host waits for; on the meta device nothing can be read or copied to it."""
    linear = torch.nn.Linear(45, 8).to("meta")
    gated = GatedLinear(linear, torch.ones(2, 4, device="meta"))
    with HostTensors() as made:
        assert gated(torch.ones(2, 3, 45, device="meta")).shape == (2, 3, 8)
    assert made.names == []


@torch.no_grad()
def test_cached_steps_agree_with_one_pass(make_decoder) -> None:
    model = make_decoder(attention="sdpa")
    install(model.layers)
    x = torch.randn(1, 8, 32)
    for seed in range(4):
        gates = random_gates(seed)
        if seed == 3:
            gates[:, 1] = 0  # a layer skipped dense keeps no keys and values
        dense = model(inputs_embeds=x, execution=execution(gates, True)).last_hidden_state
        run, cache = execution(gates, True), DynamicCache()
        steps = [model(inputs_embeds=x[:, :5], past_key_values=cache, use_cache=True, execution=run)]
        for t in range(5, 8):
            steps.append(model(inputs_embeds=x[:, t : t + 1], past_key_values=cache, use_cache=True, execution=run))
        torch.testing.assert_close(torch.cat([s.last_hidden_state for s in steps], 1), dense, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_rows_with_different_plans_equal_rows_alone(make_decoder) -> None:
    model = make_decoder()
    install(model.layers)
    x, gates = torch.randn(3, 6, 32), random_gates(5, rows=3)
    joint = model(inputs_embeds=x, execution=execution(gates, True)).last_hidden_state
    for row in range(3):
        alone = model(inputs_embeds=x[row : row + 1], execution=execution(gates[row : row + 1], True))
        torch.testing.assert_close(joint[row : row + 1], alone.last_hidden_state, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_gives_the_same_gradients(make_decoder, reentrant) -> None:
    x = torch.randn(2, 6, 32)
    gradients, counts = [], []
    for checkpointing in (False, True):
        model = make_decoder().train()
        install(model.layers)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        scores = torch.zeros(2, 2, 2, 4, requires_grad=True)
        gates = random_gates(7, rows=2) + scores - scores.detach()
        embeds = x.clone().requires_grad_()
        with layer_runs() as runs:
            out = model(inputs_embeds=embeds, execution=execution(gates, False, train=True)).last_hidden_state
            out.square().sum().backward()
        counts.append(len(runs))
        gradients.append([scores.grad, embeds.grad, *[p.grad for p in model.layers.parameters()]])
    assert counts == [4, 8] and gradients[0][0].abs().sum() > 0
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain, atol=1e-5, rtol=1e-4)


def test_the_swap_is_idempotent_reversible_and_keeps_keys(make_decoder) -> None:
    model = make_decoder()
    keys, classes = list(model.state_dict()), [type(layer) for layer in model.layers]
    install(model.layers)
    once = [type(layer) for layer in model.layers]
    install(model.layers)
    assert [type(layer) for layer in model.layers] == once and issubclass(once[0], MaskableLayer)
    assert list(model.state_dict()) == keys
    uninstall(model.layers)
    assert [type(layer) for layer in model.layers] == classes


@torch.no_grad()
@pytest.mark.parametrize("removed", [False, True])
def test_layer_that_accelerate_has_hooked_before_the_swap_runs_its_plan(make_decoder, removed) -> None:
    """As a model is that was loaded with a device map, and is made adaptive then."""
    x, gates = torch.randn(1, 6, 32), random_gates(3)
    model, plain = make_decoder(), make_decoder()
    install(plain.layers)
    for layer in model.layers:
        add_hook_to_module(layer, ModelHook())
        if removed:
            remove_hook_from_module(layer)
    install(model.layers)
    for narrow in (True, False):
        expected = plain(inputs_embeds=x, execution=execution(gates, narrow)).last_hidden_state
        assert torch.equal(model(inputs_embeds=x, execution=execution(gates, narrow)).last_hidden_state, expected)
    for one in (model, plain):
        uninstall(one.layers)
    assert torch.equal(model(inputs_embeds=x).last_hidden_state, plain(inputs_embeds=x).last_hidden_state)


def test_hidden_states_have_an_entry_for_skipped_layers_too(make_decoder) -> None:
    model = make_decoder()
    install(model.layers)
    run = execution(torch.zeros(1, 2, 2, 4), True)
    out = model(inputs_embeds=torch.randn(1, 3, 32), execution=run, output_hidden_states=True)
    assert len(out.hidden_states) == 5
