"""Identifies a checkpoint's weights and config by a hash that is quick also for many gigabytes."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llava.errors import CheckpointError
from llava.model.checkpoint.adapter_chain import weight_files
from llava.model.checkpoint.folder import CONFIG_FILE
from llava.model.checkpoint.weights_io import read_json

END_BYTES = 4096  # of each tensor, that are read at either end
CHANGES_NOTHING = ("transformers_version", "_name_or_path")  # fields of config.json


def checkpoint_fingerprint(folder: Path, *more: str) -> str:
    """Return a sha256, as hexadecimal digits, of config.json and all weight files, and of ``more`` that are there.

    Of a safetensors file the header and both ends of every tensor are hashed, which training changes in any tensor
    that it touches; a pickle is hashed from end to end. Raises CheckpointError for a folder without weights.
    """
    digest = hashlib.sha256()
    config = {key: value for key, value in read_json(folder / CONFIG_FILE).items() if key not in CHANGES_NOTHING}
    digest.update(json.dumps(config, sort_keys=True).encode())
    files = weight_files(folder)
    if not files:
        raise CheckpointError(f"{folder} has no weights; name a checkpoint's folder")
    for file in files:
        digest.update(file.name.encode())
        for part in _ends_of_tensors(file) if file.suffix == ".safetensors" else _blocks(file):
            digest.update(part)
    for path in (folder / name for name in more):
        if path.is_file():
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _blocks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            yield block


def _ends_of_tensors(file: Path) -> Iterator[bytes]:
    """Yield a safetensors file's header, and the ends of its tensors, in the order of their names."""
    with file.open("rb") as stream:
        try:
            (size,) = struct.unpack("<Q", stream.read(8))
            header = stream.read(min(size, file.stat().st_size))
            tensors: dict[str, Any] = json.loads(header)
            spans = [tensors[name]["data_offsets"] for name in sorted(tensors) if name != "__metadata__"]
        except (ValueError, LookupError, TypeError, struct.error) as error:
            raise CheckpointError(f"{file} is no safetensors file ({error}); copy the checkpoint again") from error
        yield header
        for start, end in spans:
            for first in (start, max(start, end - END_BYTES)):
                stream.seek(8 + size + first)
                yield stream.read(min(END_BYTES, end - first))
