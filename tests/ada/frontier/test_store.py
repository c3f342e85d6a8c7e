"""The stored frontier: read as it was written, and refused next to other weights."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from ada.frontier import store
from ada.frontier.defaults import TRAINED, UNTRAINED
from ada.frontier.fingerprint import checkpoint_fingerprint
from ada.frontier.store import FILE_NAME, frontier_of, read_frontier, save_frontier
from ada.frontier.table import Point
from llava.errors import CheckpointError

POINTS = [Point(1.0, 1.0, 1.0, 0.95), Point(0.5, 0.25, 0.5, 0.875), Point(1 / 3, 1 / 3, 0.3, 1 / 7)]


@pytest.fixture
def folder(tmp_path):
    """A checkpoint's folder with two tensors and a config."""
    torch.manual_seed(0)
    tensors = {"layer": torch.randn(300, 40), "scorer": torch.randn(3)}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"num_hidden_layers": 4, "transformers_version": "5.0"}))
    return tmp_path


def test_frontier_is_read_as_it_was_saved(folder) -> None:
    path = save_frontier(folder, POINTS, {"questions": 100})
    frontier = read_frontier(folder)
    assert frontier is not None and list(frontier.points) == POINTS and frontier.source == str(path)
    assert json.loads(path.read_text())["about"] == {"questions": 100}
    assert not list(folder.glob(".*")), "nothing half-written is left"


def test_folder_without_a_frontier_has_none(folder) -> None:
    assert read_frontier(folder) is None


@pytest.mark.parametrize("name", ["layer", "scorer"])
@pytest.mark.parametrize("index", [0, -1])
def test_frontier_of_other_weights_is_refused(folder, name, index) -> None:
    save_frontier(folder, POINTS, {})
    tensors = load_file(folder / "model.safetensors")
    tensors[name].view(-1)[index] += 1
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"measured with other weights.*python -m ada\.eval\.frontier.*or remove"):
        read_frontier(folder)


def test_fingerprint_is_by_config_but_not_by_the_transformers_that_wrote_it(folder) -> None:
    first = checkpoint_fingerprint(folder)
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 4, "transformers_version": "5.1"}))
    assert checkpoint_fingerprint(folder) == first
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 5}))
    assert checkpoint_fingerprint(folder) != first


def test_fingerprint_reads_pickles_and_adapters(folder) -> None:
    prints = [checkpoint_fingerprint(folder)]
    torch.save({"x": torch.zeros(2)}, folder / "non_lora_trainables.bin")
    prints.append(checkpoint_fingerprint(folder))
    torch.save({"x": torch.ones(2)}, folder / "non_lora_trainables.bin")
    prints.append(checkpoint_fingerprint(folder))
    assert len(set(prints)) == 3


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0{}"[:9], b"\x03\0\0\0\0\0\0\0[1]"])
def test_fingerprint_of_damaged_weights_is_refused(folder, content) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="no safetensors file"):
        checkpoint_fingerprint(folder)


def test_fingerprint_of_a_folder_without_weights_is_refused(folder) -> None:
    os.remove(folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="has no weights"):
        checkpoint_fingerprint(folder)


def changed(**fields):
    def change(content):
        return {**content, **fields}

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: [], "cannot be read"),
        (lambda content: {}, "cannot be read"),
        (changed(version=7), "has version 7, this program reads 1"),
        (changed(points=[]), "has no points"),
        (changed(points=[{"front": 1}]), "cannot be read"),
        (changed(points=[{"front": 2, "late": 1, "units": 1, "accuracy": 1}]), "not a point of a frontier"),
        (changed(points=7), "cannot be read"),
    ],
)
def test_damaged_frontier_is_refused(folder, change, message) -> None:
    path = save_frontier(folder, POINTS, {})
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(CheckpointError, match=f"{FILE_NAME}.*{message}.*measure again"):
        read_frontier(folder)


@pytest.mark.parametrize("text", ["", "{", '{"version": 1'])
def test_frontier_cut_off_is_refused(folder, text) -> None:
    (folder / FILE_NAME).write_text(text)
    with pytest.raises(CheckpointError, match="cannot be read as a frontier"):
        read_frontier(folder)


class Config:
    """A loaded model's config."""

    def __init__(self, folder, **fields) -> None:
        self._name_or_path = str(folder)
        self.__dict__.update(fields)


def test_frontier_of_a_model_is_that_of_its_folder_or_a_default(folder) -> None:
    assert frontier_of(Config(folder)) is UNTRAINED
    assert frontier_of(Config("", image_token_dropout=0.1)) is TRAINED
    save_frontier(folder, POINTS, {})
    assert list(frontier_of(Config(folder)).points) == POINTS


def test_frontier_of_a_model_is_read_once_until_the_file_changes(folder, monkeypatch) -> None:
    reads = []
    monkeypatch.setattr(store, "read_frontier", lambda path: (reads.append(path), read_frontier(path))[1])
    path = save_frontier(folder, POINTS, {})
    assert frontier_of(Config(folder)) is frontier_of(Config(folder)) and len(reads) == 1
    save_frontier(folder, POINTS[:1], {})
    os.utime(path, ns=(1, 1))
    assert list(frontier_of(Config(folder)).points) == POINTS[:1] and len(reads) == 2
