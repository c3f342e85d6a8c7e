"""The published checkpoint format, read and written: every key, every tensor, the same answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ada.config import AdaLlavaConfig
from ada.model.modeling import AdaLlavaLlamaForCausalLM
from llava.errors import OptionError
from llava.model import LlavaConfig, LlavaLlamaForCausalLM

PROMPT = torch.tensor([[1, 17, -200, 60, 7]])
SCHEDULER_KEYS = {
    *(f"scheduler.mlp_head.{part}" for part in ("weight", "bias")),
    *(f"scheduler.scheduler_up_proj.net.{i}.{part}" for i in (0, 1, 3) for part in ("weight", "bias")),
}
PUBLISHED_FIELDS = ("model_type", "num_prefix_layers", "scheduler_type", "scheduler_rank", "token_selecting")
# What the published code, on transformers 4.37, looks for under these names.
OLD_FIELDS = ("rope_theta", "rope_scaling", "torch_dtype", "mm_vision_tower", "mm_projector_type")


def load(folder: Path) -> AdaLlavaLlamaForCausalLM:
    model, found = AdaLlavaLlamaForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"] and not found["mismatched_keys"]
    model.get_vision_tower().load_model()
    return model.eval()


def answer(model: AdaLlavaLlamaForCausalLM, pixels: torch.Tensor) -> list:
    given = {"images": pixels[:1], "latency_budget": 0.75, "max_new_tokens": 5, "do_sample": False}
    return model.generate(PROMPT, **given).tolist()


@pytest.mark.parametrize("kind", ["H", "L"])
@pytest.mark.parametrize("key_value_heads", [8, 2])
def test_saved_and_loaded_it_is_the_same_model(make_llava, pixels, tmp_path, kind, key_value_heads) -> None:
    rank = min(2, key_value_heads)
    model = make_llava(kind, prefix=3, layers=7, key_value_heads=key_value_heads, rank=rank)
    model.save_pretrained(tmp_path)
    again = load(tmp_path)
    ours, theirs = model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert answer(again, pixels) == answer(model, pixels)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert [saved[name] for name in PUBLISHED_FIELDS] == ["ada_llava_llama", 3, kind, rank, "none"]
    assert saved["architectures"] == ["AdaLlavaLlamaForCausalLM"] and set(OLD_FIELDS) <= set(saved)


@pytest.mark.parametrize("name", ["tiny_ada_L", "tiny_ada_H", "tiny8_ada_L", "tiny8_ada_H"])
def test_published_files_survive_loading_and_saving(golden, tmp_path, name) -> None:
    source = golden / "ada" / name
    model = load(source)
    model.save_pretrained(tmp_path)
    before, after = (load_file(folder / "model.safetensors") for folder in (source, tmp_path))
    assert {key for key in before if key.startswith("scheduler")} == SCHEDULER_KEYS
    if not any("vision_tower" in key for key in before):  # H checkpoints name a tower and do not hold it
        after = {key: value for key, value in after.items() if "vision_tower" not in key}
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    fields, again = (json.loads((folder / "config.json").read_text()) for folder in (source, tmp_path))
    changed = {key for key in fields if again.get(key, "absent") != fields[key]}
    assert changed <= {"transformers_version"}, "every field is still there, with its value"


def test_a_missing_tensor_of_the_scheduler_is_named(make_llava, tmp_path) -> None:
    make_llava("H").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["scheduler.mlp_head.bias"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    _, found = AdaLlavaLlamaForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert set(found["missing_keys"]) == {"scheduler.mlp_head.bias"}


def test_plain_llava_reads_what_is_not_the_schedulers(make_llava, tmp_path) -> None:
    model = make_llava("H")
    model.save_pretrained(tmp_path)
    config = LlavaConfig(**{**model.config.to_dict(), "model_type": "llava_llama"})
    plain, found = LlavaLlamaForCausalLM.from_pretrained(tmp_path, config=config, output_loading_info=True)
    assert set(found["unexpected_keys"]) == SCHEDULER_KEYS and not found["missing_keys"]
    assert torch.equal(plain.lm_head.weight, model.lm_head.weight)


def test_training_starts_from_a_plain_checkpoint(make_llava, tmp_path) -> None:
    """The scheduler's weights are then new, and drawn as any new layer's."""
    model = make_llava("H")
    LlavaLlamaForCausalLM.save_pretrained(model, tmp_path, state_dict=without_scheduler(model))
    fresh, found = AdaLlavaLlamaForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert set(found["missing_keys"]) == SCHEDULER_KEYS
    norm = fresh.scheduler.scheduler_up_proj.net[0]
    assert (norm.weight == 1).all() and (norm.bias == 0).all()
    for linear in (fresh.scheduler.mlp_head, fresh.scheduler.scheduler_up_proj.net[3]):
        assert 0.1 < linear.weight.std() / model.config.initializer_range < 10 and linear.weight.isfinite().all()


def without_scheduler(model: AdaLlavaLlamaForCausalLM) -> dict[str, torch.Tensor]:
    return {key: value for key, value in model.state_dict().items() if not key.startswith("scheduler")}


def test_half_of_the_layers_are_prefix_where_the_config_does_not_say() -> None:
    assert [AdaLlavaConfig(num_hidden_layers=n).num_prefix_layers for n in (1, 2, 7, 32)] == [1, 1, 3, 16]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"scheduler_type": "X"}, "scheduler_type is 'X'"),
        ({"num_prefix_layers": 0}, "num_prefix_layers is 0; expected 1 to 5"),
        ({"num_prefix_layers": 6}, "num_prefix_layers is 6; expected 1 to 5"),
        ({"scheduler_rank": 3}, "scheduler_rank is 3; expected a divisor of 8"),
        ({"scheduler_rank": 16}, "scheduler_rank is 16; expected a divisor of 8"),
        ({"token_selecting": "fastv"}, "token_selecting is 'fastv'"),
    ],
)
def test_impossible_configs_are_refused_by_name(make_llava, changes, named) -> None:
    """The reference crashes on most of them, and gives gates of 2.0 where the rank does not divide the heads."""
    config = make_llava("H").config
    with pytest.raises(OptionError, match=named):
        AdaLlavaLlamaForCausalLM(AdaLlavaConfig(**{**config.to_dict(), **changes}))
