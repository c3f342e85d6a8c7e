"""What heads and neurons matter: against masks that autograd differentiates, and a run that starts from it."""

from __future__ import annotations

import math
import re
import sys

import pytest
import torch
from fixtures.training import LORA, SCHEDULER, answer, opened
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from ada.scheduling.selection import select_switches
from ada.train import importance
from ada.train.importance import measure, measure_layers, start_by_importance, switch_scores
from llava.errors import CheckpointError, OptionError
from llava.model.checkpoint.neuron_order import order_of, write_order


@pytest.fixture
def samples_of_tiny(batch):
    """The batch, with images, within the tiny checkpoint's vocabulary and for its tower."""
    words = {name: batch[name].clamp(max=59) for name in ("input_ids", "labels")}
    return {**batch, **words, "images": torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(3))}


@torch.enable_grad()
def slow_importance(model, batch):
    """Every part of every position multiplied by a one, and the loss differentiated by the ones."""
    ones = {}
    handles = []
    for number, layer in enumerate(model.get_model().layers):
        sizes = {"heads": layer.self_attn.o_proj, "neurons": layer.mlp.down_proj}
        for kind, projection in sizes.items():
            parts = model.config.num_key_value_heads if kind == "heads" else projection.in_features

            def scaled(module, given, key=(kind, number), parts=parts):
                value = given[0]
                ones[key] = torch.ones(*value.shape[:2], parts, requires_grad=True)
                return (value * ones[key].repeat_interleave(value.shape[-1] // parts, dim=-1),)

            handles.append(projection.register_forward_pre_hook(scaled))
    loss = model(**batch).loss
    keys = list(ones)
    gradients = torch.autograd.grad(loss, [ones[key] for key in keys])
    for handle in handles:
        handle.remove()
    found = {key: one.square().sum(dim=(0, 1)) for key, one in zip(keys, gradients, strict=True)}
    layers = range(len(model.get_model().layers))
    return [torch.stack([found[kind, number] for number in layers]) for kind in ("heads", "neurons")]


@pytest.mark.parametrize("key_value_heads", [4, 2])
def test_it_is_what_the_loss_changes_by(make_checkpoint, samples_of_tiny, key_value_heads):
    model, _ = opened(make_checkpoint(num_key_value_heads=key_value_heads))
    given = samples_of_tiny
    found = measure(model, [given, given])
    heads, neurons = slow_importance(model, given)
    torch.testing.assert_close(found.heads, 2 * heads, rtol=1e-3, atol=1e-9)
    torch.testing.assert_close(found.neurons, 2 * neurons, rtol=1e-3, atol=1e-9)
    sizes = found.of_switches()
    for layer, order in enumerate(found.order.tolist()):
        ranked = [neurons[layer, neuron].item() for neuron in order]
        assert ranked == sorted(ranked, reverse=True)
        group = len(order) // key_value_heads
        for switch in range(key_value_heads):
            expected = 2 * sum(ranked[switch * group : (switch + 1) * group])
            assert math.isclose(sizes[layer, 1, switch].item(), expected, rel_tol=1e-3)
    assert not any(module._forward_pre_hooks for module in model.modules()), "nothing is left in the model"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 4))
def test_a_scheduler_that_starts_with_it_drops_the_pairs_that_matter_least(seed, layers, switches):
    found = torch.rand(layers, 2, switches, generator=torch.Generator().manual_seed(seed)) + 0.01
    scores = switch_scores(found)
    assert abs(scores.mean().item()) < 1e-5
    pairs = []
    for layer in range(layers):
        heads = sorted(found[layer, 0].tolist(), reverse=True)
        groups = sorted(found[layer, 1].tolist(), reverse=True)
        pairs += [(math.sqrt(a) + math.sqrt(b), layer) for a, b in zip(heads, groups, strict=True)]
    for units in range(layers * switches + 1):
        gates = select_switches(scores[None], torch.tensor([units]), 1)[0]
        kept = [layer for _, layer in sorted(pairs, reverse=True)[:units]]
        assert gates.sum(dim=(1, 2)).tolist() == [2 * kept.count(layer) for layer in range(layers)]
        for layer in range(layers):
            for kind in range(2):
                on = gates[layer, kind].bool()
                assert not on.any() or on.all() or found[layer, kind][on].min() >= found[layer, kind][~on].max()


@pytest.fixture(scope="module")
def order_file(tiny_checkpoint, toy_data, tmp_path_factory):
    """The program's own file."""
    out = tmp_path_factory.mktemp("order") / "order.safetensors"
    flags = ["--model-path", tiny_checkpoint, "--data-path", toy_data / "data.json"]
    flags += ["--image-folder", toy_data / "images", "--samples", 6, "--version", "v1", "--device", "cpu", "--out", out]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["importance", *map(str, flags)])
        assert importance.main() == 0
    return out


@pytest.fixture(scope="module")
def ordered(trained, order_file, tmp_path_factory):
    flags = {**LORA, **SCHEDULER, "neuron_order": order_file, "save_strategy": "steps", "save_steps": 1}
    return trained(tmp_path_factory.mktemp("lora") / "out", **flags)


def test_an_adapter_keeps_the_order_that_it_was_trained_in(ordered, order_file, tiny_checkpoint, trained, tmp_path):
    order = load_file(order_file)["neurons"].long()
    for folder in (ordered, ordered / "checkpoint-1"):
        assert torch.equal(order_of(folder), order)
    still = trained(tmp_path / "still", **LORA, **SCHEDULER, neuron_order=order_file, learning_rate=0.0, max_steps=1)
    plain, processor = opened(tiny_checkpoint)
    same, _ = opened(still, tiny_checkpoint)
    expected = answer(plain, processor).logits
    found = answer(same, processor).logits
    torch.testing.assert_close(found[:, -1], expected[:, -1], atol=1e-3, rtol=0)
    rows = plain.get_model().layers[1].mlp.up_proj.weight
    torch.testing.assert_close(same.get_model().layers[1].mlp.up_proj.weight, rows[order[1]])


def test_merged_and_unmerged_run_the_same_plans(ordered, tiny_checkpoint):
    merged, processor = opened(ordered, tiny_checkpoint)
    unmerged, _ = opened(ordered, tiny_checkpoint, merge_lora=False)
    first, second = (answer(one, processor, latency_budget=0.75) for one in (merged, unmerged))
    assert first.execution_plan == second.execution_plan
    torch.testing.assert_close(first.logits, second.logits, atol=1e-4, rtol=0)


def test_a_layer_matters_as_the_loss_grows_without_it(make_checkpoint, samples_of_tiny):
    folder = make_checkpoint(num_hidden_layers=3)
    given = [samples_of_tiny, {key: value[:2] for key, value in samples_of_tiny.items()}]
    model, _ = opened(folder)
    found = measure_layers(model, given)
    with torch.no_grad():
        full = sum(model(**one).loss.item() for one in given) / 2
        for number in range(3):
            without, _ = opened(folder)
            del without.get_model().layers[number]
            without.config.num_hidden_layers = 2
            expected = sum(without(**one, use_cache=False).loss.item() for one in given) / 2 - full
            assert math.isclose(found[number].item(), expected, rel_tol=1e-3, abs_tol=1e-5)
        assert math.isclose(sum(model(**one).loss.item() for one in given) / 2, full), "all layers run again"


@pytest.mark.parametrize("kind", ["H", "L"])
def test_a_scheduler_starts_with_it_whatever_it_reads(make_adaptive_checkpoint, tmp_path, kind):
    switches, layers = torch.rand(4, 2, 4) + 0.1, torch.tensor([5.0, 3.0, 0.25, 2.0])
    neurons = torch.stack([torch.randperm(48) for _ in range(4)])
    write_order(tmp_path / "order.safetensors", neurons, switches=switches, layers=layers)
    model, _ = opened(make_adaptive_checkpoint(kind))
    start_by_importance(model, tmp_path / "order.safetensors")
    logits = model.scheduler(torch.randn(3, model.config.hidden_size))
    expected = switch_scores(switches[2:]) if kind == "H" else layers[2:].log() - layers[2:].log().mean()
    for row in logits:
        torch.testing.assert_close(row, expected)
    assert (getattr(model, "neuron_order", None) is None) == (kind == "L"), "layers need no order"
    write_order(tmp_path / "other.safetensors", neurons, switches=switches[:, :, :2], layers=layers[:3])
    with pytest.raises(OptionError, match=r"is of switches .* measure it on this model"):
        start_by_importance(model, tmp_path / "other.safetensors")


def test_a_run_goes_on_from_an_adapter_only_in_its_order(ordered, trained, tmp_path):
    more = {**LORA, **SCHEDULER, "lora_weight_path": ordered, "learning_rate": 0.0, "max_steps": 1}
    with pytest.raises(CheckpointError, match=re.escape(f"give --neuron_order {ordered / 'neuron_order.safetensors'}")):
        trained(tmp_path / "without", **more)
    out = trained(tmp_path / "with", **more, neuron_order=ordered / "neuron_order.safetensors")
    for name in ("adapter_model.safetensors", "neuron_order.safetensors"):
        first, again = load_file(ordered / name), load_file(out / name)
        assert all(torch.equal(first[key], again[key]) for key in first)


def test_orders_that_cannot_be_used(order_file, trained, make_adaptive_checkpoint, tmp_path):
    with pytest.raises(OptionError, match=r"--neuron_order is .*, but the model has no scheduler"):
        trained(tmp_path / "plain", neuron_order=order_file)
    with pytest.raises(OptionError, match=r"--neuron_order is .* has a scheduler already"):
        trained(tmp_path / "again", neuron_order=order_file, model_name_or_path=make_adaptive_checkpoint())
