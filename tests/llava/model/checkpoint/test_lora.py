"""Adapters that peft has written, wherever in the model they are: opened, they answer as the trained model did."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava.errors import CheckpointError
from llava.model.builder import load_pretrained_model

peft = pytest.importorskip("peft")

PROMPT = torch.tensor([[1, 5, -200, 7]])
PIXELS = torch.linspace(-1, 1, 3 * 16 * 16).view(1, 3, 16, 16)
TOWER = r"model\.vision_tower\..*\.(q_proj|fc1)"
COVERED = {
    "decoder": r"model\.layers\..*\.(q_proj|down_proj)",
    "both, by names that both have": ["q_proj", "v_proj"],
    "tower": TOWER,
    "tower and projector": rf"{TOWER}|model\.mm_projector\.0",
    "everything": "all-linear",
}


def opened(folder, base=None, **more):
    _, model, processor, _ = load_pretrained_model(str(folder), base and str(base), "any", device="cpu", **more)
    assert processor is not None
    return model


def logits(model):
    with torch.no_grad():
        return model(PROMPT, images=PIXELS).logits


@pytest.fixture(params=["separate", "inside"])
def base(request, make_checkpoint):
    """A LLaVA; its tower in a folder by itself, or among its own weights."""
    folder = make_checkpoint()
    if request.param == "inside":
        shutil.rmtree(folder / "tower")
    else:
        weights = load_file(folder / "model.safetensors")
        weights = {key: value for key, value in weights.items() if "vision_tower" not in key}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        shutil.rmtree(folder / "vision_tower")
    return folder


def trained(base, folder, targets, **config):
    """Give a model adapters of random values, save them as peft does, and return its logits."""
    model = opened(base)
    model.config.save_pretrained(folder)
    settings = peft.LoraConfig(r=2, lora_alpha=4, target_modules=targets, init_lora_weights=False, **config)
    torch.manual_seed(7)
    wrapped = peft.get_peft_model(model, settings).eval()
    wrapped.save_pretrained(folder)
    return logits(wrapped)


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("covered", COVERED)
def test_adapter_answers_as_the_model_that_it_was_trained_in(base, tmp_path, covered, merge):
    expected = trained(base, tmp_path / "lora", COVERED[covered])
    found = logits(opened(tmp_path / "lora", base, merge_lora=merge))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert (expected - logits(opened(base))).abs().max() > 1e-2, "the adapter changes the answer"


@pytest.mark.parametrize("targets", [COVERED["decoder"], TOWER])
def test_tower_trained_in_full_next_to_an_adapter_is_read(base, tmp_path, targets):
    trained(base, tmp_path / "lora", targets)
    model = opened(tmp_path / "lora", base)
    name = next(key for key, _ in model.named_parameters() if "vision_tower" in key and "patch_embedding" in key)
    value = torch.randn_like(dict(model.named_parameters())[name])
    torch.save({f"base_model.model.{name}": value}, tmp_path / "lora" / "non_lora_trainables.bin")
    again = opened(tmp_path / "lora", base)
    assert torch.equal(dict(again.named_parameters())[name], value)


def test_adapter_of_another_tower_is_refused_with_its_layers(base, tmp_path):
    trained(base, tmp_path / "lora", TOWER)
    path = tmp_path / "lora" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "target_modules": r"model\.layers\..*\.q_proj"}))
    with pytest.raises(CheckpointError, match=r"does not fit the layers that its adapter_config\.json and"):
        opened(tmp_path / "lora", base)


def test_a_tower_near_the_adapter_is_the_adapters(make_checkpoint, tmp_path):
    """As in a bundle: the tower lies in the adapter's folder, and another adapter names it from its own."""
    base = make_checkpoint()
    expected = trained(base, tmp_path / "one", COVERED["decoder"])
    shutil.copytree(base / "tower", tmp_path / "one" / "own")
    set_config(tmp_path / "one", mm_vision_tower="own")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "own")
    set_config(tmp_path / "two", mm_vision_tower="one/own")
    for name in ("one", "two"):
        model = opened(tmp_path / name, base)
        assert model.get_vision_tower().location == str(tmp_path / "one" / "own")
        assert model.config._name_or_path == str(tmp_path / name), "where its other files are looked for"
        torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=0)


def set_config(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
