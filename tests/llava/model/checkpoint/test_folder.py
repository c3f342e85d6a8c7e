"""Opening a checkpoint folder: which kind it is, which files hold its weights, and how often it is read."""

import dataclasses
import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava.errors import CheckpointError
from llava.model.builder import load_pretrained_model
from llava.model.checkpoint.folder import CheckpointFolder, CheckpointKind, local_folder
from llava.model.convert import convert


def by_this_project():
    """Whether a module of ``llava`` called the standard library to open a file."""
    frame = sys._getframe(2)
    while frame is not None and not any(part in frame.f_code.co_filename for part in ("llava", "site-packages")):
        frame = frame.f_back
    return frame is not None and "site-packages" not in frame.f_code.co_filename


@pytest.fixture
def opened_configs():
    """``opened_configs(folder)``: how often this project has opened its config.json since the test began.

    What transformers' tokenizers and processors open for themselves is not counted.
    """
    opened, watching = [], True

    def note(event, arguments):
        if watching and event == "open" and str(arguments[0]).endswith("config.json") and by_this_project():
            opened.append(str(arguments[0]))

    sys.addaudithook(note)  # cannot be removed, hence the flag
    yield lambda folder: opened.count(str(folder / "config.json"))
    watching = False


def test_open_full_checkpoint_names_its_weight_file(checkpoint):
    folder = CheckpointFolder.open(checkpoint)
    assert folder.kind is CheckpointKind.FULL
    assert folder.weight_files == (checkpoint / "model.safetensors",)
    assert folder.projector_file is None and not folder.hub_layout
    assert folder.fields == json.loads((checkpoint / "config.json").read_text())


def test_open_sharded_checkpoint_names_every_shard(checkpoint):
    tensors = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    names = {key: f"model-{number % 2}.safetensors" for number, key in enumerate(sorted(tensors))}
    for shard in set(names.values()):
        save_file({key: tensors[key] for key in names if names[key] == shard}, checkpoint / shard)
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    folder = CheckpointFolder.open(checkpoint)
    assert folder.weight_files == (checkpoint / "model-0.safetensors", checkpoint / "model-1.safetensors")
    assert set(folder.weights()) == set(tensors)


def test_open_projector_alone(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    torch.save({}, checkpoint / "mm_projector.bin")
    folder = CheckpointFolder.open(checkpoint)
    assert folder.kind is CheckpointKind.PROJECTOR
    assert folder.projector_file == checkpoint / "mm_projector.bin"


def test_open_adapter_is_lora_whatever_else_is_there(checkpoint):
    (checkpoint / "adapter_config.json").write_text("{}")
    assert CheckpointFolder.open(checkpoint).kind is CheckpointKind.LORA


def test_open_folder_without_weights_is_empty(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    folder = CheckpointFolder.open(checkpoint)
    assert folder.kind is CheckpointKind.EMPTY and folder.weight_files == ()


def test_open_hub_layout_gives_tensors_llavas_names(checkpoint, tmp_path):
    convert(str(checkpoint), tmp_path / "hub")
    folder = CheckpointFolder.open(tmp_path / "hub")
    assert folder.hub_layout and folder.kind is CheckpointKind.FULL
    assert set(folder.weights()) == set(CheckpointFolder.open(checkpoint).weights())


def test_open_without_config_raises_unless_it_may_be_missing(checkpoint):
    (checkpoint / "config.json").unlink()
    with pytest.raises(CheckpointError, match="as JSON"):
        CheckpointFolder.open(checkpoint)
    assert CheckpointFolder.open(checkpoint, needs_config=False).fields == {}


def test_folder_cannot_be_changed(checkpoint):
    with pytest.raises(dataclasses.FrozenInstanceError):
        CheckpointFolder.open(checkpoint).kind = CheckpointKind.LORA


def test_local_folder_of_unknown_name_raises(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match="check the path"):
        local_folder(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("layout", ["llava", "hub"])
def test_load_reads_config_once(checkpoint, tmp_path, opened_configs, layout):
    folder = checkpoint
    if layout == "hub":
        folder = tmp_path / "hub"
        convert(str(checkpoint), folder)
    before = opened_configs(folder)
    load_pretrained_model(str(folder), None, "any", device="cpu")
    assert opened_configs(folder) - before == 1
