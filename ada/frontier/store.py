"""Stores a checkpoint's frontier next to its weights, and finds the frontier of a loaded model."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ada.frontier.defaults import default_frontier
from ada.frontier.fingerprint import checkpoint_fingerprint
from ada.frontier.table import Frontier, Point
from llava.errors import CheckpointError, DataError
from llava.files.atomic_write import atomic_write

FILE_NAME = "frontier.json"
VERSION = 1
FIELDS = tuple(field.name for field in fields(Point))


def save_frontier(folder: Path, points: Sequence[Point], about: Mapping[str, Any]) -> Path:
    """Write the points that were measured with a checkpoint into its folder, atomically; return the file.

    about: what they were measured on, for people.
    """
    path = folder / FILE_NAME
    content = {
        "version": VERSION,
        "checkpoint": checkpoint_fingerprint(folder),
        "about": dict(about),
        "points": [asdict(point) for point in points],
    }
    atomic_write(path, json.dumps(content, indent=1) + "\n")
    return path


def read_frontier(folder: Path) -> Frontier | None:
    """Read the frontier in a checkpoint's folder; None where there is none.

    Raises CheckpointError for a file that is damaged, and for one that was measured with other weights, or under
    another config: what it predicts would be wrong, and nothing would show it.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    again = f"measure again (python -m ada.eval.frontier --model-path {folder}), or remove the file"
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        version, checkpoint = content["version"], content["checkpoint"]
        if version != VERSION:
            raise CheckpointError(f"{path} has version {version!r}, this program reads {VERSION}; {again}")
        points = [Point(**{name: point[name] for name in FIELDS}) for point in content["points"]]
        frontier = Frontier(tuple(points), str(path))
    except (OSError, ValueError, KeyError, TypeError, DataError) as error:
        raise CheckpointError(f"{path} cannot be read as a frontier ({error}); {again}") from error
    if checkpoint != checkpoint_fingerprint(folder):
        raise CheckpointError(f"{path} was measured with other weights, or another config.json, than are here; {again}")
    return frontier


def frontier_of(config: Any) -> Frontier:
    """Return the frontier of a loaded model: its folder's, or the default where that has none.

    config: the model's, which names the folder that it was loaded from. The file is read once. Raises CheckpointError
    as ``read_frontier`` does.
    """
    name = getattr(config, "_name_or_path", None)
    path = Path(name) / FILE_NAME if name else None
    if path is None or not path.is_file():
        return default_frontier(config)
    stored = _read_once(path.parent, path.stat().st_mtime_ns)
    return default_frontier(config) if stored is None else stored


@functools.lru_cache(maxsize=16)
def _read_once(folder: Path, changed_ns: int) -> Frontier | None:
    """Read a folder's frontier again only where the file has changed since."""
    return read_frontier(folder)
