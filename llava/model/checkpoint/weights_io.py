"""Reads weights from a checkpoint folder: safely, only those asked for, and with every misfit named."""

from __future__ import annotations

import contextlib
import json
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import nn

from llava.errors import CheckpointError
from llava.model.checkpoint.byte_order_mark import has_mark
from llava.model.checkpoint.zero3 import gathered_parameters

Tensors = dict[str, torch.Tensor]
OLD_BUFFERS = (".rotary_emb.inv_freq", ".embeddings.position_ids")
CONFIG_ERRORS = (OSError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError, StrictDataclassError)
SHOWN = 8  # keys that a message names before it counts the rest

# In the order of preference, as transformers looks for them.
SINGLE, INDEXED = 0, 1
FILE_NAMES = (
    ("model.safetensors", SINGLE),
    ("model.safetensors.index.json", INDEXED),
    ("pytorch_model.bin", SINGLE),
    ("pytorch_model.bin.index.json", INDEXED),
)


def find_weight_files(folder: Path) -> list[Path]:
    """Return the files that hold all of a folder's model, sharded or not; none where there are none.

    Raises CheckpointError for an index without a map, and for one that names missing files.
    """
    for name, kind in FILE_NAMES:
        path = folder / name
        if not path.is_file():
            continue
        if kind == SINGLE:
            return [path]
        if has_mark(path):
            raise CheckpointError(f"{path} begins with a byte order mark; save it as UTF-8 without one")
        named = read_json(path).get("weight_map")
        if not isinstance(named, dict) or not all(isinstance(shard, str) for shard in named.values()):
            raise CheckpointError(f"{path} has no weight_map from tensors to files; copy the checkpoint again")
        shards = sorted(set(named.values()))
        if missing := [shard for shard in shards if not (folder / shard).is_file()]:
            raise CheckpointError(f"{path} names files that are not there: {listed(missing)}")
        return [folder / shard for shard in shards]
    return []


def read_weights(path: Path) -> Tensors:
    """Read all tensors of a ``.safetensors`` or ``.bin`` file, on the CPU. Raises CheckpointError."""
    return CheckpointWeights([path]).read()


class CheckpointWeights:
    """The tensors of some weight files. Iterates over their keys; reads tensors only when asked.

    Buffers that older releases of transformers saved, and today's compute, are skipped. Raises CheckpointError for a
    damaged file, for a pickle of anything but tensors, and for one name twice.
    rename: a tensor's name in the file -> the name that it goes by here.
    """

    def __init__(self, files: Iterable[Path], rename: Callable[[str], str] | None = None) -> None:
        self._file_of: dict[str, Path] = {}
        self._stored: dict[str, str] = {}  # its name in the file
        self._pickled: dict[Path, Tensors] = {}
        for file in files:
            if file.suffix == ".safetensors":
                keys: Iterable[str] = _safetensors_keys(file)
            else:
                keys = self._pickled[file] = _read_pickle(file)
            for key in keys:
                if not key.endswith(OLD_BUFFERS):
                    name = rename(key) if rename else key
                    if rename and name in self._file_of:
                        raise CheckpointError(f"{file} has one tensor twice, as {key} and {self._stored[name]}")
                    self._file_of[name], self._stored[name] = file, key

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)

    def read(self, keys: Iterable[str] | None = None, strip: str = "") -> Tensors:
        """Read the tensors of ``keys`` (all, by default), with the prefix ``strip`` cut from each name."""
        wanted: dict[Path, list[str]] = {}
        for key in self._file_of if keys is None else keys:
            wanted.setdefault(self._file_of[key], []).append(key)
        found: Tensors = {}
        for file, names in wanted.items():
            if file in self._pickled:
                found.update({name: self._pickled[file][self._stored[name]] for name in names})
            else:
                with safe_open(file, framework="pt") as opened:
                    found.update({name: opened.get_tensor(self._stored[name]) for name in names})
        return {name.removeprefix(strip): tensor for name, tensor in found.items()}


def load_exactly(module: nn.Module, tensors: Mapping[str, torch.Tensor], source: str, prefix: str = "") -> None:
    """Copy ``tensors`` into ``module``; raise CheckpointError, naming keys and shapes, unless they fit.

    prefix: what the keys in ``source`` start with, for the message.
    """
    with gathered_parameters(module.parameters()):
        own = module.state_dict()
        report_misfits(
            source,
            missing=[prefix + key for key in own if key not in tensors],
            unexpected=[prefix + key for key in tensors if key not in own],
            wrong_shapes=[
                (prefix + key, tensor.shape, own[key].shape)
                for key, tensor in tensors.items()
                if key in own and tensor.shape != own[key].shape
            ],
        )
        module.load_state_dict(dict(tensors))


def report_misfits(
    source: str,
    missing: Iterable[str] = (),
    unexpected: Iterable[str] = (),
    wrong_shapes: Iterable[tuple[str, Iterable[int], Iterable[int]]] = (),
) -> None:
    """Raise a CheckpointError that names every misfit, if there is any. Shapes: (key, in the file, in the model)."""
    parts = []
    if shapes := [f"{key} is {tuple(has)}, the model needs {tuple(needs)}" for key, has, needs in wrong_shapes]:
        parts.append(f"wrong shape: {listed(shapes, '; ')}")
    if missing := sorted(missing):
        parts.append(f"missing: {listed(missing)}")
    if unexpected := sorted(unexpected):
        parts.append(f"left over: {listed(unexpected)}")
    if parts:
        raise CheckpointError(
            f"the weights in {source} do not fit the model that its config.json describes. {'. '.join(parts)}. "
            "Correct config.json, or copy the checkpoint again"
        )


def listed(names: Iterable[str], between: str = ", ") -> str:
    """Join the first names, and say how many more there are."""
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return between.join(names[:SHOWN]) + more


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file. Raises CheckpointError where there is none."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path} as JSON: {error}") from error
    if not isinstance(fields, dict):
        raise CheckpointError(f"{path} holds {str(fields)[:40]!r}; expected a JSON object. Copy the checkpoint again")
    return fields


@contextlib.contextmanager
def settings_of(path: Path) -> Iterator[None]:
    """Raise CheckpointError, naming the JSON file, for values in it that the block's transformers code cannot use."""
    try:
        yield
    except CONFIG_ERRORS as error:
        raise CheckpointError(f"{path} cannot be used: {type(error).__name__}: {error}; correct it") from error


def _safetensors_keys(path: Path) -> list[str]:
    try:
        with safe_open(path, framework="pt") as opened:
            return list(opened.keys())
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from error


def _read_pickle(path: Path) -> Tensors:
    # Mapped, where the format allows: most callers want few of the tensors.
    mapped = zipfile.is_zipfile(path)
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|class) ([\w.]+)", str(error))
        name = f" ({found.group(1)})" if found else ""
        raise CheckpointError(
            f"{path} was refused: it holds something other than tensors{name}, and reading it could run code. Nothing "
            "was run. Get the weights as .safetensors"
        ) from error
    except (OSError, RuntimeError, EOFError, LookupError, ValueError, TypeError) as error:
        raise _damaged(path, error) from error
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise CheckpointError(f"{path} is not a dictionary of tensors, which a weight file must be")
    return tensors


def _damaged(path: Path, error: BaseException) -> CheckpointError:
    return CheckpointError(f"cannot read {path}: {first_line(error)}. It is cut short or damaged; copy it again")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its kind where it has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
