"""Runs the CLIP vision tower: pixels (N, 3, S, S) -> hidden states of one of its layers (N, patches, C)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from llava.errors import CheckpointError
from llava.model.checkpoint.folder import CheckpointFolder
from llava.model.checkpoint.quiet import quiet_loading
from llava.model.checkpoint.weights_io import load_exactly, report_misfits
from llava.protocols import TowerSettings

IN_CHECKPOINT = "model.vision_tower."  # how the tower's tensors are named in a LLaVA checkpoint
SAVED_FOLDER = "vision_tower"  # in a saved checkpoint: the tower's config and processor, its weights being the model's


class VisionModelHolder(nn.Module):
    """Holds transformers' vision model under the name ``vision_model``.

    transformers 5 dropped that level from its own module tree; LLaVA's checkpoints have it in every key. With the
    holder the keys in memory and on disk are upstream's, whoever writes them.
    """

    def __init__(self, vision_model: CLIPVisionModel) -> None:
        super().__init__()
        self.vision_model = vision_model
        self.config = vision_model.config

    def forward(self, pixels: torch.Tensor, **kwargs: Any) -> Any:
        """Run transformers' vision model."""
        return self.vision_model(pixels, **kwargs)


class CLIPVisionTower(nn.Module):
    """A vision tower whose weights are read when ``load_model`` is called, not when the tower is made.

    vision_tower: a folder (absolute, or relative to the checkpoint's own folder) or a hub name.
    args: the LLaVA config, or training arguments, with ``mm_vision_select_layer`` and, optionally,
    ``mm_vision_select_feature``: "patch" (without the class token) or "cls_patch".
    """

    # transformers' classes of this kind of tower. The processor is always PIL's: the torchvision backend gives other
    # pixels than LLaVA was trained on.
    config_class: ClassVar[Any] = CLIPVisionConfig
    model_class: ClassVar[Any] = CLIPVisionModel
    processor_class: ClassVar[Any] = CLIPImageProcessorPil

    def __init__(self, vision_tower: str, args: TowerSettings, delay_load: bool = False) -> None:
        super().__init__()
        self.is_loaded = False
        self.vision_tower_name = vision_tower
        self.checkpoint_folder = folder_of_checkpoint(args)
        self.select_layer: int = args.mm_vision_select_layer
        self.select_feature: str = getattr(args, "mm_vision_select_feature", None) or "patch"
        if self.select_feature not in ("patch", "cls_patch"):
            raise CheckpointError(
                f"mm_vision_select_feature is {self.select_feature!r}; expected 'patch' or 'cls_patch'"
            )
        self._cfg_only: CLIPVisionConfig | None = None
        self._processor: CLIPImageProcessorPil | None = None
        if not delay_load:
            self.load_model()

    @property
    def location(self) -> str:
        """The folder, where there is one, or the hub name that the tower is read from."""
        return resolve_tower(self.vision_tower_name, self.checkpoint_folder)

    @property
    def image_processor(self) -> CLIPImageProcessorPil:
        """The processor that makes the tower's pixels, read from the tower's folder."""
        if self._processor is None:
            self._processor = _from_folder(self.processor_class, self.location)
        return self._processor

    def load_model(
        self, device_map: str | torch.device | None = None, checkpoint: CheckpointFolder | None = None
    ) -> None:
        """Read the weights: those of the LLaVA checkpoint, if it has any of the tower's, otherwise the tower's own.

        checkpoint: the LLaVA's folder, where it is open; by default the one that the config was read from.
        """
        if self.is_loaded:
            return
        if checkpoint is None and self.checkpoint_folder is not None:
            checkpoint = CheckpointFolder.open(self.checkpoint_folder, needs_config=False)
        holder = self._from_checkpoint(checkpoint) if checkpoint is not None else None
        if holder is None:
            holder = VisionModelHolder(self._used(read_tower(self.location, self.model_class)))
        if device_map is not None:
            holder.to(device_map)
        self.vision_tower = holder.requires_grad_(False).eval()
        self.is_loaded = True

    def _from_checkpoint(self, checkpoint: CheckpointFolder) -> VisionModelHolder | None:
        """Read the tower that a LLaVA checkpoint holds among its weights; None where it holds none."""
        weights = checkpoint.weights()
        own = [key for key in weights if key.startswith(IN_CHECKPOINT)]
        if not own:
            return None
        prefix = f"{IN_CHECKPOINT}vision_tower."
        tensors = weights.read(own, strip=prefix)
        model = self.model_class(self.config)
        complete = VisionModelHolder(model).state_dict().keys()
        holder = VisionModelHolder(self._used(model))
        unused = complete - holder.state_dict().keys()
        tensors = {name: tensor for name, tensor in tensors.items() if name not in unused}
        load_exactly(holder, tensors, str(checkpoint.path), prefix)
        return holder

    def _used(self, model: Any) -> Any:
        """Return the vision model without the parts that this kind of tower leaves out; CLIP's is complete."""
        return model

    def describe(self, config: CLIPVisionConfig, processor: CLIPImageProcessorPil) -> None:
        """Set config and processor, where no folder holds them by themselves."""
        self._cfg_only, self._processor = config, processor

    def save_description(self, folder: Path) -> None:
        """Write config and processor, so that a checkpoint that holds the weights needs no other folder."""
        self.config.save_pretrained(folder / SAVED_FOLDER)
        self.image_processor.save_pretrained(folder / SAVED_FOLDER)

    def feature_select(self, outputs: BaseModelOutputWithPooling) -> torch.Tensor:
        """Return hidden states of ``select_layer`` (N, 1 + patches, C), without the class token for "patch"."""
        return self._patches(outputs.hidden_states[self.select_layer])

    @property
    def layers_run(self) -> int:
        """Layers up to the selected one; the output of those after it is not used."""
        count = self.config.num_hidden_layers
        if not isinstance(self.select_layer, int) or not -count - 1 <= self.select_layer <= count:
            raise CheckpointError(f"mm_vision_select_layer is {self.select_layer!r}; the tower has {count} layers")
        return range(count + 1)[self.select_layer]

    @torch.no_grad()
    def forward(self, images: torch.Tensor | list[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
        """Turn pixels (N, 3, S, S), or a list of (3, S, S), into features (N, P, C), or a list of (1, P, C).

        Features have the dtype of the pixels.
        """
        if isinstance(images, list):
            return [self._features(image[None]) for image in images]
        return self._features(images)

    def _features(self, pixels: torch.Tensor) -> torch.Tensor:
        # Layer by layer, as the model's own list of hidden states cannot be trusted here: once the language model
        # around it is asked for hidden states or attentions, transformers hooks the tower a second time, and every
        # state is listed twice.
        vision = self.vision_tower.vision_model
        hidden = self._embedded(pixels.to(self.device, self.dtype))
        for layer in vision.encoder.layers[: self.layers_run]:
            hidden = layer(hidden, None)
        return self._patches(hidden).to(pixels.dtype)

    def _embedded(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the input of the first layer (N, 1 + patches, C)."""
        vision = self.vision_tower.vision_model
        embedded: torch.Tensor = vision.pre_layrnorm(vision.embeddings(pixels))
        return embedded

    def _patches(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden[:, 1:] if self.select_feature == "patch" else hidden

    @property
    def dummy_feature(self) -> torch.Tensor:
        """Zeros (1, C), with the tower's dtype and device."""
        return torch.zeros(1, self.hidden_size, device=self.device, dtype=self.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the tower's weights."""
        dtype: torch.dtype = self.vision_tower.vision_model.dtype
        return dtype

    @property
    def device(self) -> torch.device:
        """The device of the tower's weights."""
        device: torch.device = self.vision_tower.vision_model.device
        return device

    @property
    def config(self) -> CLIPVisionConfig:
        """The tower's own config, readable before the weights are."""
        if self.is_loaded:
            return self.vision_tower.config
        if self._cfg_only is None:
            self._cfg_only = _from_folder(self.config_class, self.location)
        return self._cfg_only

    @property
    def hidden_size(self) -> int:
        """Width C of the tower's features."""
        return int(self.config.hidden_size)

    @property
    def num_patches_per_side(self) -> int:
        """Patches along one side of a crop."""
        return int(self.config.image_size // self.config.patch_size)

    @property
    def num_patches(self) -> int:
        """Patches of one crop, the class token not among them."""
        return self.num_patches_per_side**2

    @property
    def num_image_tokens(self) -> int:
        """Decoder positions of one crop, or of an image that is not cut: its patches, and the class token if kept."""
        return self.num_patches + (self.select_feature == "cls_patch")


def resolve_tower(name: str, checkpoint_folder: Path | None) -> str:
    """Return the folder that a tower's name means, or the name itself, for the hub.

    A relative path is looked for in the checkpoint's folder, so that a folder may hold all it needs, then in the two
    folders above it, where a tower may be shared by several checkpoints, then in the current folder. A tower that is
    in none may still be described in the checkpoint itself, in ``SAVED_FOLDER``.
    """
    path = Path(name).expanduser()
    candidates = [path]
    if checkpoint_folder is not None:
        above = checkpoint_folder.absolute().parents[:2]
        relative = [folder / path for folder in (checkpoint_folder, *above)]
        candidates = [*relative, path, checkpoint_folder / SAVED_FOLDER]
    for folder in candidates:
        if (folder / "config.json").is_file():
            return str(folder)
    if path.is_absolute() or len(path.parts) != 2 or name.startswith("."):  # the hub's names are owner/model
        looked = f"{checkpoint_folder}, the two folders above it, " if checkpoint_folder else ""
        raise CheckpointError(f"there is no vision tower at {name!r}; looked in {looked}and the current folder")
    return name


def folder_of_checkpoint(args: object) -> Path | None:
    """Return the checkpoint folder that a config was read from; None for training arguments, and for a hub name."""
    folder = getattr(args, "_name_or_path", None)
    return Path(folder) if folder and Path(folder).is_dir() else None


def read_tower(location: str, model_class: Any = CLIPVisionModel, **kwargs: Any) -> Any:
    """Read the tower of a folder or hub name; ``model_class`` is transformers' for it.

    Raises CheckpointError where a tensor is missing or of another shape: transformers would fill in random ones.
    """
    model, found = _from_folder(model_class, location, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs)
    report_misfits(location, missing=found["missing_keys"], wrong_shapes=found["mismatched_keys"])
    return model


def _from_folder(kind: Any, location: str, **kwargs: Any) -> Any:
    """Call ``kind.from_pretrained``. Raises CheckpointError where it cannot read the folder or hub name."""
    try:
        with quiet_loading():
            return kind.from_pretrained(location, **kwargs)
    except (OSError, AttributeError, TypeError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot read the vision tower at {location!r} ({error}); mm_vision_tower must be a CLIP or SigLIP folder, "
            "relative to the checkpoint or absolute, or a hub name that can be reached"
        ) from error
