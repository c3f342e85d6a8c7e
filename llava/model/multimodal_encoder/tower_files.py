"""Finds and reads the files of a vision tower: its folder or hub name, its config, processor and weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import CLIPVisionModel

from llava.errors import CheckpointError
from llava.model.checkpoint.byte_order_mark import read_without_marks
from llava.model.checkpoint.folder import CheckpointFolder
from llava.model.checkpoint.quiet import quiet_loading
from llava.model.checkpoint.weights_io import load_exactly, report_misfits
from llava.model.multimodal_encoder.vision_holder import VisionModelHolder

IN_CHECKPOINT = ("model.vision_tower.", "transformer.vision_tower.")  # how its tensors' names begin in a LLaVA's; MPT's
SAVED_FOLDER = "vision_tower"  # in a saved checkpoint: the tower's config and processor, its weights being the model's


def resolve_tower(name: str, checkpoint_folder: Path | None) -> str:
    """Return the folder that a tower's name means, or the name itself, for the hub.

    A relative path is looked for in the checkpoint's folder, so that a folder may hold all it needs, then in the two
    folders above it, where a tower may be shared by several checkpoints, then in the current folder. A tower that is
    in none may still be described in the checkpoint itself, in ``SAVED_FOLDER``.
    """
    path = Path(name).expanduser()
    candidates = [path]
    if checkpoint_folder is not None:
        candidates = [*_near(path, checkpoint_folder), path, checkpoint_folder / SAVED_FOLDER]
    for folder in candidates:
        if (folder / "config.json").is_file():
            return str(folder)
    if path.is_absolute() or len(path.parts) != 2 or name.startswith("."):  # the hub's names are owner/model
        looked = f"{checkpoint_folder}, the two folders above it, " if checkpoint_folder else ""
        raise CheckpointError(f"there is no vision tower at {name!r}; looked in {looked}and the current folder")
    return name


def comes_with(name: str, checkpoint_folder: Path) -> bool:
    """Return whether a tower of this name is found by way of the checkpoint's folder, not in the current one."""
    near = _near(Path(name).expanduser(), checkpoint_folder)
    return any((folder / "config.json").is_file() for folder in (*near, checkpoint_folder / SAVED_FOLDER))


def _near(path: Path, checkpoint_folder: Path) -> list[Path]:
    return [folder / path for folder in (checkpoint_folder, *checkpoint_folder.absolute().parents[:2])]


def folder_of_checkpoint(args: object) -> Path | None:
    """Return the checkpoint folder that a config was read from; None for training arguments, and for a hub name."""
    folder = getattr(args, "_name_or_path", None)
    return Path(folder) if folder and Path(folder).is_dir() else None


def read_tower(location: str, model_class: Any = CLIPVisionModel, **kwargs: Any) -> Any:
    """Read the tower of a folder or hub name; ``model_class`` is transformers' for it.

    Raises CheckpointError where a tensor is missing or of another shape: transformers would fill in random ones.
    """
    model, found = from_folder(model_class, location, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs)
    report_misfits(location, missing=found["missing_keys"], wrong_shapes=found["mismatched_keys"])
    return model


def tower_in_checkpoint(
    checkpoint: CheckpointFolder, make: Callable[[], Any], used: Callable[[Any], Any]
) -> VisionModelHolder | None:
    """Read the tower that a LLaVA checkpoint holds among its weights; None where it holds none.

    make: makes transformers' model for it; used: removes the parts of that model that are left out, whose tensors are
    passed over. Raises CheckpointError where the others do not fit.
    """
    weights = checkpoint.weights()
    own = [key for key in weights if key.startswith(IN_CHECKPOINT)]
    if not own:
        return None
    prefix = "{}.vision_tower.vision_tower.".format(own[0].partition(".")[0])
    tensors = weights.read(own, strip=prefix)
    model = make()
    complete = VisionModelHolder(model).state_dict().keys()
    holder = VisionModelHolder(used(model))
    unused = complete - holder.state_dict().keys()
    tensors = {name: tensor for name, tensor in tensors.items() if name not in unused}
    load_exactly(holder, tensors, str(checkpoint.path), prefix)
    return holder


def from_folder(kind: Any, location: str, **kwargs: Any) -> Any:
    """Call ``kind.from_pretrained``. Raises CheckpointError where it cannot read the folder or hub name."""

    def read(readable: str | Path) -> Any:
        with quiet_loading():
            return kind.from_pretrained(readable, **kwargs)

    try:
        found = read_without_marks(Path(location), read) if Path(location).is_dir() else read(location)
    except (OSError, AttributeError, TypeError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot read the vision tower at {location!r} ({error}); mm_vision_tower must be a CLIP or SigLIP folder, "
            "relative to the checkpoint or absolute, or a hub name that can be reached"
        ) from error
    model = found[0] if isinstance(found, tuple) else found
    parts: list[Any] = [model, getattr(model, "config", None)]
    for part in parts:
        if hasattr(part, "name_or_path"):
            part.name_or_path = location  # where it had marks it was read from a temporary folder
    return found
