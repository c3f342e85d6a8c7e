"""Warns, before weights are read, of a model that will take more memory than is free."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ada.engine.kv_slots import kv_dtype
from ada.memory.free_memory import free_bytes
from ada.memory.gigabytes import GB
from ada.memory.narrow_limit import FLAG, DefaultLimit, narrow_limit_of
from llava.model.checkpoint.folder import CONFIG_FILE, CheckpointFolder, CheckpointKind, open_checkpoint
from llava.model.checkpoint.read_model import read_fields
from llava.model.checkpoint.weights_io import find_weight_files, read_json
from llava.model.multimodal_encoder.tower_files import resolve_tower
from llava.model.placement import fitting_dtype

log = logging.getLogger(__name__)

POSITIONS = 1000  # of prompt and answer, for which a row's KV cache is counted
STORED_BYTES = {"float16": 2, "bfloat16": 2}  # of a number in the files; else 4
EIGHT_BITS, FOUR_BITS = 1.0, 0.58  # bytes of a number, embeddings in 16 bits and scales included


@dataclass(frozen=True)
class LoadNeeds:
    """Bytes that a model takes: its weights, narrow layers up to their limit, and the KV cache of running rows."""

    weights: int
    narrow: int
    kv: int

    @property
    def total(self) -> int:
        """The sum of all three."""
        return self.weights + self.narrow + self.kv


def warn_of_memory(options: Mapping[str, Any], path: str, device: str) -> None:
    """Log one line where loading the checkpoint at ``path`` onto ``device`` takes more than is free; else nothing.

    options: flags by name, of which those of the model, of what is cut and of how many rows run at a time count.
    Raises what opening the checkpoint raises.
    """
    folder = open_checkpoint(path)
    base = folder
    if folder.kind is not CheckpointKind.FULL:
        if not options.get("model_base"):
            return  # the load says that it is missing
        base = open_checkpoint(options["model_base"])
    free = _free_bytes(device)
    if free is None:
        return
    rows = max(1, int(options.get("batch_size") or options.get("limit_model_concurrency") or 1))
    needs = load_needs(folder, base, options, device, free, rows)
    if needs.total > free:
        log.warning(
            "loading %s takes about %.3g GB, and %.3g GB of %s are free: weights %.3g, narrow layers %.3g, KV cache "
            "%.3g (%d at a time, of 1,000 positions). Lower %s, load it in 8 or 4 bits, or choose another --device",
            path,
            *(size / GB for size in (needs.total, free)),
            device,
            *(size / GB for size in (needs.weights, needs.narrow, needs.kv)),
            rows,
            FLAG,
        )


def _free_bytes(device: str) -> int | None:
    """What is free for a model; without a number, "cuda" spreads it over all GPUs."""
    devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if device == "cuda" else [device]
    free = [free_bytes(one) for one in devices]
    return None if None in free else sum(size for size in free if size is not None)


def load_needs(
    folder: CheckpointFolder, base: CheckpointFolder, options: Mapping[str, Any], device: str, free: int, rows: int
) -> LoadNeeds:
    """Return what a load takes, from config.json and the sizes of files.

    folder: the checkpoint; base: where the language model is. free: bytes, which the default limit goes by.
    """
    fields = read_fields(folder)
    given = options.get("dtype") or options.get("torch_dtype")
    dtype = given if isinstance(given, torch.dtype) else fitting_dtype(device, fields, base.weight_files)
    decoder = int(_elements(base.weight_files, fields) * _decoder_bytes(options, dtype))
    weights = decoder + _tower_elements(fields, folder) * dtype.itemsize
    narrow = _narrow_bytes(fields, options, weights, max(0, free - weights))
    kept = kv_dtype(dtype, torch.device(device))
    return LoadNeeds(weights, narrow, rows * POSITIONS * _kv_bytes(fields, kept.itemsize))


def _decoder_bytes(options: Mapping[str, Any], dtype: torch.dtype) -> float:
    """The bytes of one of the decoder's numbers, which is in ``dtype`` where it is not quantised."""
    if options.get("load_4bit"):
        return FOUR_BITS
    return EIGHT_BITS if options.get("load_8bit") else dtype.itemsize


def _elements(files: Sequence[Path], fields: Mapping[str, Any]) -> int:
    """The numbers in weight files, by their sizes and the dtype that config.json's fields state."""
    saved = str(fields.get("dtype") or fields.get("torch_dtype"))
    return sum(file.stat().st_size for file in files) // STORED_BYTES.get(saved, 4)


def _tower_elements(fields: Mapping[str, Any], folder: CheckpointFolder) -> int:
    """The numbers of a tower in another folder; one on the hub is not counted, nor one in the checkpoint again."""
    name = fields.get("mm_vision_tower")
    if folder.hub_layout or not isinstance(name, str) or not name:
        return 0
    tower = Path(resolve_tower(name, folder.path))
    return _elements(find_weight_files(tower), read_json(tower / CONFIG_FILE)) if tower.is_dir() else 0


def _narrow_bytes(fields: Mapping[str, Any], options: Mapping[str, Any], weights: int, left: int) -> int:
    """The limit of narrow layers where anything can be cut. left: bytes that are free once weights are read."""
    planned = "scheduler_type" in fields or options.get("planner") is not None
    if not planned or options.get("load_4bit"):
        return 0
    given, layers = narrow_limit_of(options), _count(fields, "num_hidden_layers")
    prefix = _count(fields, "num_prefix_layers") or layers // 2
    tunable = weights * (layers - prefix) // layers if layers else weights
    return DefaultLimit(tunable).of(left) if given is None else given


def _kv_bytes(fields: Mapping[str, Any], element: int) -> int:
    """The bytes of one position of one row; 0 where config.json does not state the sizes, which the load then says."""
    heads = _count(fields, "num_attention_heads")
    if not heads:
        return 0
    key_value_heads = _count(fields, "num_key_value_heads") or heads
    head = _count(fields, "head_dim") or _count(fields, "hidden_size") // heads
    return 2 * _count(fields, "num_hidden_layers") * key_value_heads * head * element


def _count(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    return value if isinstance(value, int) and value > 0 else 0
