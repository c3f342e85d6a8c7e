"""apply_delta, make_delta, consolidate and extract_mm_projector, as their users run them."""

import json
import runpy
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from llava.errors import CheckpointError
from llava.model.apply_delta import apply_delta
from llava.model.apply_delta import main as apply_main
from llava.model.builder import load_pretrained_model
from llava.model.checkpoint.weight_delta import combined
from llava.model.consolidate import consolidate_ckpt
from llava.model.consolidate import main as consolidate_main
from llava.model.make_delta import make_delta


def tensors(folder):
    return load_file(folder / "model.safetensors")


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def run(monkeypatch, capsys):
    """``run(main, flag, ...)`` -> exit code and what was printed as an error. A separate process costs seconds."""

    def call(main, *flags):
        monkeypatch.setattr(sys, "argv", ["program", *map(str, flags)])
        try:
            main()
        except SystemExit as stop:
            return stop.code, capsys.readouterr().err
        return 0, capsys.readouterr().err

    return call


@pytest.fixture(scope="module")
def base(make_config, tmp_path_factory):
    """Another language model of the tiny LLaVA's size, with two tokens fewer."""
    folder = tmp_path_factory.mktemp("base") / "base"
    fields = {k: v for k, v in make_config().to_dict().items() if not k.startswith("mm_") and k != "model_type"}
    torch.manual_seed(9)
    LlamaForCausalLM(LlamaConfig(**{**fields, "vocab_size": 58})).save_pretrained(folder)
    return folder


def test_apply_delta_undoes_make_delta(tiny_checkpoint, base, tmp_path, run):
    make_delta(str(base), str(tiny_checkpoint), str(tmp_path / "delta"))
    delta, target, start = tensors(tmp_path / "delta"), tensors(tiny_checkpoint), tensors(base)
    name = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(delta[name], target[name] - start[name])
    assert torch.equal(delta["lm_head.weight"][:58], target["lm_head.weight"][:58] - start["lm_head.weight"])
    assert torch.equal(delta["lm_head.weight"][58:], target["lm_head.weight"][58:])
    assert torch.equal(delta["model.mm_projector.0.weight"], target["model.mm_projector.0.weight"])
    flags = {"--base-model-path": base, "--delta-path": tmp_path / "delta", "--target-model-path": tmp_path / "again"}
    assert run(apply_main, *(word for flag in flags.items() for word in flag)) == (0, "")
    again = tensors(tmp_path / "again")
    assert set(again) == set(target)
    for key, value in target.items():  # a sum and a difference of float32 each round once
        torch.testing.assert_close(again[key], value, atol=1e-6, rtol=1e-6)
    model = load_pretrained_model(str(tmp_path / "again"), None, "any", device="cpu")[1]
    assert model.get_vision_tower().is_loaded


def test_make_delta_of_unrelated_models_raises(tiny_checkpoint, base, tmp_path):
    other = shutil.copytree(base, tmp_path / "other")
    weights = tensors(other)
    save_file({**weights, "model.layers.7.mlp.up_proj.weight": torch.ones(2)}, other / "model.safetensors")
    with pytest.raises(CheckpointError, match="is it its base"):
        make_delta(str(other), str(tiny_checkpoint), str(tmp_path / "delta"))
    save_file({**weights, "model.norm.weight": torch.ones(2)}, other / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model.norm.weight is \(32,\), and \(2,\)"):
        make_delta(str(other), str(tiny_checkpoint), str(tmp_path / "delta"))
    weights.pop("model.norm.weight")
    save_file(weights, other / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"has no model.norm.weight"):
        apply_delta(str(other), str(tmp_path / "delta"), str(tiny_checkpoint))
    assert not (tmp_path / "delta").exists()


@pytest.mark.parametrize("name", ["token_scorer.net.0.weight", "transformer.mm_projector.0.weight", "scheduler.a"])
def test_delta_has_what_training_added_as_it_is(name):
    own, base = {"model.norm.weight": torch.full((2,), 3.0), name: torch.ones(2)}, {"model.norm.weight": torch.ones(2)}
    found = combined(own, base, -1)
    assert torch.equal(found[name], own[name]) and found["model.norm.weight"].tolist() == [2, 2]


def test_make_delta_uploads_to_a_named_repository(tiny_checkpoint, base, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("llava.model.make_delta.HfApi.create_repo", lambda *a, **k: calls.append(k))
    monkeypatch.setattr("llava.model.make_delta.HfApi.upload_folder", lambda *a, **k: calls.append(k))
    make_delta(str(base), str(tiny_checkpoint), str(tmp_path / "delta"), "someone/delta")
    assert calls[-1] == {"repo_id": "someone/delta", "folder_path": str(tmp_path / "delta")}


def test_consolidate_rewrites_old_shards_as_one_folder(checkpoint, tmp_path, run):
    """Pickled shards and an old config become one folder that says what it is."""
    weights = tensors(checkpoint)
    names = sorted(weights)
    shards = {"pytorch_model-1.bin": names[:9], "pytorch_model-2.bin": names[9:]}
    for file, own in shards.items():
        torch.save({name: weights[name] for name in own}, checkpoint / file)
    index = {name: file for file, own in shards.items() for name in own}
    (checkpoint / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    (checkpoint / "model.safetensors").unlink()
    change_config(checkpoint, model_type="llama")
    assert run(consolidate_main, "--src", checkpoint, "--dst", tmp_path / "new") == (0, "")
    shutil.rmtree(checkpoint)
    after = tensors(tmp_path / "new")
    assert set(after) == set(weights) and all(torch.equal(after[name], weights[name]) for name in weights)
    model = load_pretrained_model(str(tmp_path / "new"), None, "any", device="cpu")[1]
    assert model.config.model_type == "llava_llama" and model.get_vision_tower().is_loaded


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"model_type": "gpt2"}, "model_type 'gpt2'"), ({"num_hidden_layers": 3}, "missing: model.layers.2")],
    ids=str,
)
def test_consolidate_of_wrong_config_raises_and_writes_nothing(checkpoint, tmp_path, changes, message):
    change_config(checkpoint, **changes)
    with pytest.raises(CheckpointError, match=message):
        consolidate_ckpt(str(checkpoint), str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_extract_mm_projector_writes_the_projector_alone(root, tiny_checkpoint, base, tmp_path, run):
    """The file serves next to a language model, as stage 1's does."""
    script, folder = root / "scripts" / "extract_mm_projector.py", tmp_path / "projector"
    main = runpy.run_path(str(script))["main"]
    assert run(main, "--model-path", tiny_checkpoint, "--output", folder / "mm_projector.bin") == (0, "")
    found = torch.load(folder / "mm_projector.bin", weights_only=True)
    source = tensors(tiny_checkpoint)
    assert set(found) == {name for name in source if "mm_projector" in name}
    assert all(torch.equal(value, source[name]) for name, value in found.items())
    code, error = run(main, "--model-path", base, "--output", tmp_path / "none.bin")
    assert code == 2 and "no projector" in error and not (tmp_path / "none.bin").exists()
