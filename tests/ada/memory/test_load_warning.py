"""What a load will take is said before it is taken, and only where it does not fit."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch

from ada.memory import load_warning
from ada.memory.load_warning import load_needs, warn_of_memory
from llava.errors import CheckpointError, OptionError
from llava.model.builder import load_pretrained_model
from llava.model.checkpoint.folder import open_checkpoint

GB = 10**9
SIZES = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}


@pytest.fixture
def free(monkeypatch):
    """``free(gigabytes)``: what every device says from now on."""
    return lambda gigabytes: monkeypatch.setattr(load_warning, "free_bytes", lambda device: int(gigabytes * GB))


@pytest.fixture
def folder_of_7b(tmp_path) -> Path:
    """A folder with a config and files of the sizes of LLaVA-1.5 7B, which take no space on the disk."""
    folder = tmp_path / "checkpoint"
    for path, size in ((folder, 13.5), (folder / "tower", 0.6)):
        path.mkdir()
        with (path / "pytorch_model.bin").open("wb") as file:
            file.truncate(int(size * GB))
    (folder / "tower" / "config.json").write_text('{"torch_dtype": "float16"}')
    fields = {"model_type": "ada_llava_llama", "torch_dtype": "float16", "mm_vision_tower": "tower", **SIZES}
    (folder / "config.json").write_text(json.dumps({**fields, "scheduler_type": "H", "num_prefix_layers": 16}))
    return folder


def test_enough_memory_is_quiet(folder_of_7b, free, caplog) -> None:
    free(24)
    warn_of_memory({}, str(folder_of_7b), "cpu")
    assert not caplog.records


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ({}, ["takes about 15.1 GB", "14 GB of cpu are free", "weights 14.1", "narrow layers 0,", "KV cache 1.05"]),
        ({"narrow_cache_gb": 5}, ["takes about 20.1 GB", "narrow layers 5,"]),
        ({"batch_size": 8}, ["KV cache 8.39 (8 at a time"]),
        ({"limit_model_concurrency": 4}, ["KV cache 4.19 (4 at a time"]),
        ({"load_8bit": True, "batch_size": 32}, ["weights 7.35", "narrow layers 1.66,", "KV cache 33.6"]),
    ],
)
def test_too_little_memory_is_one_line_with_the_numbers(folder_of_7b, free, caplog, options, numbers) -> None:
    free(14)
    with caplog.at_level(logging.WARNING):
        warn_of_memory(options, str(folder_of_7b), "cpu")
    [record] = caplog.records
    said = record.getMessage()
    assert "\n" not in said and "--narrow-cache-gb" in said
    assert all(number in said for number in numbers), said


def test_default_limit_leaves_the_kv_cache_its_memory(folder_of_7b, free, caplog) -> None:
    free(16)
    warn_of_memory({}, str(folder_of_7b), "cpu")
    assert not caplog.records, "1.9 GB are left: a quarter for narrow layers, 1.05 for keys and values"


def test_memory_of_all_gpus_counts_where_a_model_is_spread_over_them(folder_of_7b, free, caplog, monkeypatch) -> None:
    free(8)
    monkeypatch.setattr(load_warning.torch.cuda, "device_count", lambda: 2)
    warn_of_memory({}, str(folder_of_7b), "cuda")
    assert not caplog.records
    warn_of_memory({}, str(folder_of_7b), "cuda:1")
    assert "8 GB of cuda:1 are free" in caplog.text


def test_dtype_of_the_load_counts(folder_of_7b) -> None:
    folder = open_checkpoint(str(folder_of_7b))
    as_stored, wide = (
        load_needs(folder, folder, {"dtype": dtype}, "cpu", 100 * GB, 1) for dtype in (None, torch.float32)
    )
    assert as_stored.weights == int(14.1 * GB) and wide.weights == 2 * as_stored.weights
    assert wide.kv == as_stored.kv == 1000 * 2 * 32 * 4096 * 4, "in float32 either way, on a CPU"


@pytest.mark.parametrize(("bits", "bytes_of_7b"), [(8, 6.75), (4, 3.9)])
def test_quantised_weights_take_as_much_whatever_the_dtype(folder_of_7b, bits, bytes_of_7b) -> None:
    folder = open_checkpoint(str(folder_of_7b))
    half, wide = (
        load_needs(folder, folder, {f"load_{bits}bit": True, "dtype": dtype}, "cpu", 100 * GB, 1).weights
        for dtype in (torch.float16, torch.float32)
    )
    assert half == pytest.approx((bytes_of_7b + 0.6) * GB, rel=0.01)
    assert wide - half == int(0.6 * GB), "the tower alone is in the dtype"


@pytest.mark.parametrize("missing", ["folder", "base"])
def test_what_cannot_be_opened_is_left_to_the_load(tmp_path, free, caplog, missing) -> None:
    free(0)
    if missing == "folder":
        with pytest.raises(CheckpointError, match="nowhere"):
            warn_of_memory({}, str(tmp_path / "nowhere"), "cpu")
        return
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "mm_projector.bin").write_bytes(b"")
    warn_of_memory({}, str(tmp_path), "cpu")
    assert not caplog.records


def test_bad_limit_is_refused_before_weights_are_read(folder_of_7b, free) -> None:
    with pytest.raises(OptionError, match="--narrow-cache-gb is -1"):
        warn_of_memory({"narrow_cache_gb": -1}, str(folder_of_7b), "cpu")


def test_weights_are_those_that_torch_holds_once_loaded(root) -> None:
    path = root / "ada" / "checkpoints" / "shapes-H"
    _, model, _, _ = load_pretrained_model(str(path), None, "shapes", device="cpu")
    held = sum(p.nbytes for p in model.parameters())
    folder = open_checkpoint(str(path))
    needs = load_needs(folder, folder, {}, "cpu", 10 * GB, 1)
    assert needs.weights == pytest.approx(held, rel=0.01)
    assert needs.narrow == 256 << 20
