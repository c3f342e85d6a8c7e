"""Lists the checkpoints of an output folder, says what one lacks to be resumed from, and removes old ones."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

from llava.errors import CheckpointError
from llava.model.checkpoint.lora import OTHERS_FILE, WEIGHT_FILES, is_adapter
from llava.model.checkpoint.weights_io import CheckpointWeights, find_weight_files
from llava.train.runtime.saving import PROJECTOR_FILE

LATEST = "latest"  # the file of DeepSpeed that names the folder of its state
STATE_FILE = "trainer_state.json"
_NAME = re.compile(r"checkpoint-(0|[1-9][0-9]*)", re.ASCII)
_RANK = re.compile(r"rank_([0-9]+)_|rng_state_([0-9]+)\.", re.ASCII)


def numbered_checkpoints(output_dir: str | Path) -> list[Path]:
    """Return the folders that a run has named ``checkpoint-STEP``, oldest first; a user's copies have other names."""
    found = [path for path in Path(output_dir).glob("checkpoint-*") if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=_step)


def _step(folder: Path) -> int:
    return int(folder.name.partition("-")[2])


def remove_old(saved: Path, limit: int | None, best: str | None = None) -> None:
    """Remove the oldest checkpoints of a run, so that ``limit`` are left: ``saved`` among them, and the ``best``.

    Those that a resumed run has passed over, of a later step than it has reached or killed while they were written, go
    first. saved: the folder just written. limit: the flag ``--save_total_limit``; None or 0 removes nothing.
    """
    folders = numbered_checkpoints(saved.parent)
    if not limit or limit < 0:
        return
    kept = {saved, *(folder for folder in folders if best is not None and folder == Path(best))}
    old = sorted((folder for folder in folders if folder not in kept), key=lambda one: _is_usable(one, saved))
    for folder in old[: max(0, len(folders) - max(limit, len(kept)))]:
        shutil.rmtree(folder)


def _is_usable(folder: Path, saved: Path) -> bool:
    """Return whether a checkpoint is of an earlier step than ``saved``, and was written to its end."""
    return _step(folder) < _step(saved) and (folder / STATE_FILE).is_file()


def deepspeed_writers(folder: Path) -> int:
    """Count the processes whose DeepSpeed state a checkpoint holds; 0 for one without DeepSpeed."""
    state = deepspeed_state(folder)
    return 0 if state is None else len(list(state.glob("*_optim_states.pt")))


def deepspeed_state(folder: Path) -> Path | None:
    """Return the folder of DeepSpeed's state that a checkpoint names; None for one without DeepSpeed."""
    if not (folder / LATEST).is_file():
        return None
    return folder / (folder / LATEST).read_text(encoding="utf-8").strip()


def missing_parts(folder: Path, has_scheduler_file: bool = True) -> list[str]:
    """Return the names of what a checkpoint lacks of a run's state, or has cut short; none for a complete one.

    has_scheduler_file: False where DeepSpeed keeps the schedule of learning rates with its own state.
    """
    lacks = [*_trainer_state_faults(folder)]
    if (folder / LATEST).is_file() or any(folder.glob("global_step*")):
        lacks += _deepspeed_faults(folder)
    else:
        lacks += _weight_faults(folder)
        # FSDP's optimizer is one file, or a folder of parts.
        if not any(_is_archive(path) or path.is_dir() for path in folder.glob("optimizer*")):
            lacks.append("optimizer.pt")
    if has_scheduler_file and not _is_archive(folder / "scheduler.pt"):
        lacks.append("scheduler.pt")
    return lacks + _random_state_faults(folder)


def _trainer_state_faults(folder: Path) -> Iterator[str]:
    try:
        step = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))["global_step"]
    except (OSError, ValueError, KeyError, TypeError):
        yield STATE_FILE
    else:
        if step != _step(folder):
            yield f"{STATE_FILE} of step {_step(folder)} (it is of step {step})"


def _weight_faults(folder: Path) -> Iterator[str]:
    if (folder / PROJECTOR_FILE).is_file():
        files, expected = [folder / PROJECTOR_FILE], PROJECTOR_FILE
    elif is_adapter(folder):
        files, expected = [folder / name for name in WEIGHT_FILES if (folder / name).is_file()], WEIGHT_FILES[0]
        if not _is_archive(folder / OTHERS_FILE):
            yield OTHERS_FILE
    elif any(path.is_dir() for path in folder.glob("pytorch_model_fsdp*")):
        return
    else:
        try:
            files, expected = find_weight_files(folder), "model.safetensors"
        except CheckpointError:  # the index is damaged, or names a missing file
            yield "a file of its weights"
            return
    if not files:
        yield expected
    yield from (path.name for path in files if not _is_weight_file(path))


def _is_weight_file(path: Path) -> bool:
    if path.suffix != ".safetensors":
        return _is_archive(path)
    try:
        CheckpointWeights([path])  # its header states the size
    except CheckpointError:
        return False
    return True


def _deepspeed_faults(folder: Path) -> Iterator[str]:
    state = deepspeed_state(folder)
    if state is None:
        yield LATEST
        return
    optimizers, models = (list(state.glob(f"*_{kind}_states.pt")) for kind in ("optim", "model"))
    ranks, shards = _ranks(optimizers), _ranks(path for path in models if path.name.startswith("zero_pp_rank"))
    if not optimizers or ranks != set(range(len(ranks))):
        yield f"{state.name}/*_optim_states.pt of each process"
    if not models or (shards and shards != ranks):
        yield f"{state.name}/*_model_states.pt of each process"
    yield from (f"{state.name}/{path.name}" for path in (*optimizers, *models) if not path.stat().st_size)


def _random_state_faults(folder: Path) -> list[str]:
    if _is_archive(folder / "rng_state.pth"):
        return []
    found = _ranks(path for path in folder.glob("rng_state_*.pth") if _is_archive(path))
    if not found:
        return ["rng_state.pth"]
    processes = max(2, max(found) + 1, deepspeed_writers(folder))
    return [f"rng_state_{rank}.pth" for rank in range(processes) if rank not in found]


def _ranks(paths: Iterator[Path] | list[Path]) -> set[int]:
    matches = (_RANK.search(path.name) for path in paths)
    return {int(match[1] or match[2]) for match in matches if match}


def _is_archive(path: Path) -> bool:
    """Return whether a file is one that torch has written to its end."""
    return path.is_file() and zipfile.is_zipfile(path)
