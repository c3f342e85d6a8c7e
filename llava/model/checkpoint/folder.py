"""Opens a checkpoint folder once: its config.json, layout, kind and weight files, passed on to whoever loads it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from huggingface_hub import list_repo_files, snapshot_download

from llava.errors import CheckpointError
from llava.model.checkpoint.hf_names import is_hub_layout, llava_name
from llava.model.checkpoint.lora import is_adapter
from llava.model.checkpoint.model_cache import cached_model
from llava.model.checkpoint.weights_io import CheckpointWeights, find_weight_files, first_line, read_json

CONFIG_FILE = "config.json"
PROJECTOR_FILES = ("mm_projector.safetensors", "mm_projector.bin")


class CheckpointKind(Enum):
    """What a folder's weights are."""

    FULL = "full"  # all weights of a model
    PROJECTOR = "projector"  # what stage 1 of training learned; the language model is elsewhere
    LORA = "lora"  # an adapter; the model that it changes is elsewhere
    EMPTY = "empty"  # no weights: a config, or a tokenizer, alone


@dataclass(frozen=True)
class CheckpointFolder:
    """A checkpoint on this machine's disk, as it was when it was opened.

    fields: config.json as it stands in the file. hub_layout: whether fields and weights are in the layout of
    transformers' own LLaVA classes. weight_files: those of a full model, sharded or not. projector_file: the file
    that holds a projector alone, where there is one.
    """

    path: Path
    fields: dict[str, Any]
    hub_layout: bool
    kind: CheckpointKind
    weight_files: tuple[Path, ...]
    projector_file: Path | None

    @classmethod
    def open(cls, path: Path, needs_config: bool = True) -> CheckpointFolder:
        """Read ``path``'s config.json, and look which weights it holds.

        Raises CheckpointError where config.json cannot be read (it may be missing without ``needs_config``), and for
        an index of weight files that is damaged or names missing files.
        """
        config = path / CONFIG_FILE
        fields = read_json(config) if needs_config or config.is_file() else {}
        weights = tuple(find_weight_files(path))
        projector = next((path / name for name in PROJECTOR_FILES if (path / name).is_file()), None)
        if is_adapter(path):
            kind = CheckpointKind.LORA
        elif weights:
            kind = CheckpointKind.FULL
        else:
            kind = CheckpointKind.EMPTY if projector is None else CheckpointKind.PROJECTOR
        return cls(path, fields, is_hub_layout(fields), kind, weights, projector)

    @property
    def config_file(self) -> Path:
        """The path of config.json, for messages."""
        return self.path / CONFIG_FILE

    def weights(self) -> CheckpointWeights:
        """Open the weight files of a full model; tensors go by LLaVA's names, whichever layout the files are in."""
        return CheckpointWeights(self.weight_files, llava_name if self.hub_layout else None)


def open_checkpoint(name: str, cache_dir: str | None = None) -> CheckpointFolder:
    """Open a checkpoint by its folder or hub name; a hub name is downloaded first. Raises CheckpointError."""
    return CheckpointFolder.open(local_folder(name, cache_dir))


def local_folder(name: str, cache_dir: str | None = None) -> Path:
    """Return a checkpoint's folder; download a hub name, safetensors rather than pickles where there are both.

    A name may also be that of a model in this user's cache. Raises CheckpointError for one that is nothing of these.
    """
    for folder in (Path(name), cached_model(name)):
        if folder.is_dir():
            return folder
    try:
        files = list_repo_files(name)
        has_safetensors = any(file.endswith(".safetensors") for file in files)
        unwanted = ["pytorch_model*.bin"] if has_safetensors else []
        unwanted += ["*.msgpack", "*.h5", "*.gguf"]
        return Path(snapshot_download(name, cache_dir=cache_dir, ignore_patterns=unwanted))
    except (OSError, ValueError) as error:
        try:
            return Path(snapshot_download(name, cache_dir=cache_dir, local_files_only=True))
        except (OSError, ValueError):
            raise CheckpointError(
                f"{name!r} is neither a folder nor a model that can be fetched from the hub ({first_line(error)}); "
                "check the path"
            ) from error
