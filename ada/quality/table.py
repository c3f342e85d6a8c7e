"""Stores which promises of quality a checkpoint can keep, next to its weights: ``promises.json``."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ada.frontier.fingerprint import checkpoint_fingerprint
from ada.frontier.store import FILE_NAME as FRONTIER_FILE
from llava.errors import CheckpointError, OptionError
from llava.files.atomic_write import atomic_write

FILE_NAME = "promises.json"
VERSION = 1


@dataclass(frozen=True)
class Promise:
    """At most a share ``disagreement`` of accepted cheap answers differ from the full model's, with 95 % confidence.

    budget: of the cheap plan, with the image tokens that it chooses; threshold: of the first token's margin, in nats,
    from which on the cheap answer is accepted. share: of the full model's operations that answers took on average,
    refused cheap tries included; accepted, different: shares of the ``questions`` that it was measured on.
    """

    disagreement: float
    budget: float
    threshold: float
    share: float
    accepted: float
    different: float
    questions: int


@dataclass(frozen=True)
class PromiseTable:
    """The promises of one checkpoint."""

    promises: tuple[Promise, ...]
    path: str

    def best(self, disagreement: float) -> Promise:
        """Return the cheapest promise that is at least as strict. Raises OptionError where there is none."""
        fitting = [one for one in self.promises if one.disagreement <= disagreement]
        if not fitting:
            known = ", ".join(f"{one:.3g}" for one in sorted({one.disagreement for one in self.promises}))
            raise OptionError(
                f"--max-disagreement is {disagreement:g}, and {self.path} promises {known or 'nothing'}; measure it: "
                "python -m ada.eval.promise --disagreement VALUE"
            )
        return min(fitting, key=lambda one: one.share)


def save_promises(folder: Path, promises: Sequence[Promise], about: Mapping[str, Any]) -> Path:
    """Write a checkpoint's promises into its folder, atomically; return the file. about: what they were measured on."""
    path = folder / FILE_NAME
    entries = [asdict(one) | {"threshold": _finite(one.threshold)} for one in promises]
    content = {
        "version": VERSION,
        "checkpoint": checkpoint_fingerprint(folder, FRONTIER_FILE),
        "about": dict(about),
        "promises": entries,
    }
    atomic_write(path, json.dumps(content, indent=1) + "\n")
    return path


def _finite(threshold: float) -> float | None:
    """JSON has no infinity: None accepts nothing."""
    return threshold if math.isfinite(threshold) else None


def read_promises(folder: Path) -> PromiseTable:
    """Read the promises in a checkpoint's folder.

    Raises OptionError where there are none, and CheckpointError for a damaged file, or one of other weights: a promise
    that was measured with others is none.
    """
    path = folder / FILE_NAME
    measure = f"measure them: python -m ada.eval.promise --model-path {folder}"
    if not path.is_file():
        raise OptionError(f"--max-disagreement needs {path}, which is not there; {measure}")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        version, checkpoint = content["version"], content["checkpoint"]
        names = [field.name for field in fields(Promise)]
        entries = [{name: entry[name] for name in names} for entry in content["promises"]]
        promises = [Promise(**(one | {"threshold": _threshold(one["threshold"])})) for one in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read as promises ({error}); {measure}") from error
    if version != VERSION:
        raise CheckpointError(f"{path} has version {version!r}, this program reads {VERSION}; {measure}")
    if checkpoint != checkpoint_fingerprint(folder, FRONTIER_FILE):
        raise CheckpointError(
            f"{path} was measured with other weights, or another config.json or {FRONTIER_FILE}, than are here; "
            f"{measure}"
        )
    return PromiseTable(tuple(promises), str(path))


def _threshold(value: float | None) -> float:
    return math.inf if value is None else float(value)


def promises_of(config: Any) -> PromiseTable:
    """Return the promises of a loaded model, whose config names its folder; read once. Raises as ``read_promises``."""
    folder = Path(getattr(config, "_name_or_path", None) or "")
    files = (path for path in (folder / FILE_NAME, folder / FRONTIER_FILE) if path.is_file())
    return _read_once(folder, tuple(path.stat().st_mtime_ns for path in files))


@functools.lru_cache(maxsize=16)
def _read_once(folder: Path, changed_ns: tuple[int, ...]) -> PromiseTable:
    return read_promises(folder)
