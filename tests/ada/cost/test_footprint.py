"""The memory that is calculated, against what torch allocates for a model that is really there."""

from __future__ import annotations

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from ada.config import AdaLlavaConfig, AdaLlavaQwenConfig
from ada.cost.footprint import STORAGES, Footprint, Parameters, Storage
from ada.cost.hardware import HARDWARE
from ada.cost.memory_table import memory_report
from ada.cost.sizes import Sizes, sizes_of
from ada.engine.engine_rows import EngineRows
from ada.execution.layer_weights import projection_bytes
from ada.model.families import ADAPTIVE_MODELS
from ada.scheduling.units import Units
from llava.model.builder import load_pretrained_model

SIZES = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "vocab_size": 200}
GRID = {"scheduler_type": "H", "num_prefix_layers": 1, "scheduler_rank": 2}
HEADS = {"equal": (8, 8), "grouped": (8, 2)}


def made(heads="equal", config_class=AdaLlavaConfig, **changes):
    """A model without a tower, and its sizes."""
    queries, keys = HEADS[heads]
    counts = {"num_attention_heads": queries, "num_key_value_heads": keys}
    config = config_class(**{**SIZES, **GRID, **counts, **changes})
    model_class = next(kind for kind in ADAPTIVE_MODELS.values() if kind.config_class is config_class)
    torch.manual_seed(0)
    return model_class(config).eval(), Sizes(config, Units.of(config))


def footprint(sizes: Sizes, storage: str) -> Footprint:
    return Footprint.of(sizes, STORAGES[storage], Parameters.of(sizes))


@pytest.mark.parametrize("config_class", [AdaLlavaConfig, AdaLlavaQwenConfig], ids=["llama", "qwen with biases"])
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": True}, {"token_scorer_layer": 2}], ids=str)
def test_weights_are_the_bytes_of_all_parameters(heads, config_class, changes) -> None:
    model, sizes = made(heads, config_class, **changes)
    assert (footprint(sizes, "float32").weights["token_scorer"] > 0) == ("token_scorer_layer" in changes)
    for storage, dtype in (("float32", torch.float32), ("16 bits", torch.bfloat16)):
        held = {parameter.data_ptr(): parameter.nbytes for parameter in model.to(dtype).parameters()}
        found = footprint(sizes, storage)
        assert found.weight_bytes == sum(held.values())
        assert found.tunable_bytes == sum(projection_bytes(layer) for layer in model.model.layers[1:])


@pytest.mark.parametrize("name", ["shapes-H", "shapes-base"])
def test_weights_of_a_checkpoint_are_those_of_the_loaded_model(root, name) -> None:
    path = str(root / "ada" / "checkpoints" / name)
    _, model, _, _ = load_pretrained_model(path, None, name, device="cpu")
    found = footprint(sizes_of(path), "float32")
    parts = {"vision_tower": model.get_vision_tower(), "projector": model.get_model().mm_projector}
    if name == "shapes-H":
        parts["scheduler"] = model.scheduler
    else:
        assert found.weights["scheduler"] == 0
    held = {part: sum(p.nbytes for p in module.parameters()) for part, module in parts.items()}
    assert {part: found.weights[part] for part in held} == held
    assert found.weight_bytes == sum(p.nbytes for p in model.parameters())


def test_weights_of_8_bits_have_a_scale_a_row_and_those_of_4_a_scale_a_block() -> None:
    model, sizes = made()
    linears = [p for layer in model.model.layers for p in layer.modules() if isinstance(p, torch.nn.Linear)]
    weights, rows = sum(p.weight.numel() for p in linears), sum(len(p.weight) for p in linears)
    rest = 2 * (sum(p.numel() for p in model.parameters()) - weights)
    assert footprint(sizes, "8 bits").weight_bytes == rest + weights + 4 * rows
    assert footprint(sizes, "4 bits").weight_bytes == rest + weights // 2 + weights // 64 + 4 * (weights // 64 // 256)
    assert footprint(sizes, "8 bits").tunable_bytes == 0, "they cannot be cut"


def peak_bytes(run) -> int:
    """The maximum of what torch has allocated on the CPU while ``run`` runs."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


@pytest.mark.parametrize("heads", HEADS)
@torch.no_grad()
def test_slots_and_activations_are_what_a_prefill_allocates(heads) -> None:
    model, sizes = made(heads)
    found, tokens = footprint(sizes, "float32"), torch.arange(400)[None] % 200

    def run() -> EngineRows:
        rows = EngineRows(model, 1, model.model.embed_tokens.weight)
        rows.read(*model.begin(model.embed(tokens), model.grant(0.7, 1)))
        return rows

    slots = run().slots  # the plan's layers are cut now
    held = sum(keys.nbytes + values.nbytes for keys, values in slots.layers)
    assert held == slots.capacity * found.kv_bytes
    report = memory_report(sizes, HARDWARE["T4"], 400, 8, 1)["by_storage"]["float32"]
    assert report["kv_cache"] == held
    assert peak_bytes(run) - held == pytest.approx(report["activations"], rel=0.1)


@torch.no_grad()
def test_cache_of_narrow_layers_stays_within_the_default_that_is_calculated() -> None:
    model, sizes = made(hidden_size=1024, intermediate_size=4096)
    found = footprint(sizes, "float32")
    limit = found.narrow_bytes(found.weight_bytes + 4 * 10**7)
    assert limit == 10**7 < found.tunable_bytes
    model.narrow_cache.max_bytes = limit
    tokens = torch.arange(5)[None]
    for budget in (0.5, 0.6, 0.7, 0.8):
        report = model.generate(tokens, latency_budget=budget, max_new_tokens=2, return_dict_in_generate=True).report
        assert 0 < model.narrow_cache.bytes <= limit and "--narrow-cache-gb 0.01" in report.masking


@pytest.mark.parametrize(("model", "hardware", "rows"), [("llama-7b", "RTX-4090", 8), ("llama-13b", "A100-40G", 8)])
def test_7b_fits_on_24_gb_and_13b_on_40_gb_with_the_default(model, hardware, rows) -> None:
    found = memory_report(sizes_of(model), HARDWARE[hardware], 640, 128, rows)["by_storage"]["16 bits"]
    memory = HARDWARE[hardware].memory
    weights = sum(found["weights"].values())
    parameters = {"llama-7b": 6_738_415_616, "llama-13b": 13_015_864_320}[model]  # of LLaMA, as published
    assert found["weights"]["decoder"] == 2 * parameters
    assert found["narrow_layers"] == (memory - weights) // 4 > 2e9
    assert found["fits_in_memory"] and found["total"] <= 0.95 * memory, "1 GB and more is left to the driver"
    unbounded = {"llama-7b": 6.476e9, "llama-13b": 12.688e9}[model]  # the tunable layers' copy, which was the limit
    assert found["total"] - found["narrow_layers"] + unbounded > memory


@pytest.mark.parametrize("storage", [Storage(32, 4), Storage(16, 2)])
def test_storage_of_floats_has_no_scales(storage) -> None:
    assert storage.projection_bytes(1000, 10) == 1000 * storage.element_bytes
