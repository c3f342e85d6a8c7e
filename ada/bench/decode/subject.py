"""Makes the models that are timed: the bundled ones, tiny and SmolLM2, and stacks of layers with 7B shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ada.bench.decode.step_bytes import DecoderBytes
from ada.bench.models import SHAPES_7B, Models
from llava.model.builder import load_pretrained_model

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
BUNDLED, SMOL, STACK = "bundled", "smol", "7B stack"
CHECKPOINT_OF = {BUNDLED: "shapes", SMOL: "smol"}  # and its kind
LAYERS_7B = 32


@dataclass(frozen=True)
class Setting:
    """What is run: prompts of so many positions, as many at once as rows, each under its own plan of one budget."""

    budget: float
    positions: int
    rows: int


@dataclass(frozen=True)
class Subject:
    """A model, and what is run of it. steps: decode steps of a run."""

    name: str  # BUNDLED, SMOL or STACK
    kind: str  # H or L
    model: Any
    settings: Sequence[Setting]
    steps: int

    @property
    def title(self) -> str:
        """How tables name it: name and kind."""
        return f"{self.name} {self.kind}"

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = self.model.device
        return device

    @property
    def bytes(self) -> DecoderBytes:
        """Sizes of its decoder."""
        return DecoderBytes.of(self.model)

    def prompts(self, setting: Setting, seed: int = 0) -> torch.Tensor:
        """Return random token ids (R, T), the same ones for the same seed; rows differ, and so do their plans."""
        generator = torch.Generator().manual_seed(seed)
        shape = (setting.rows, setting.positions)
        ids = torch.randint(3, self.model.config.vocab_size, shape, generator=generator)
        return ids.to(self.device)


MakeModel = Callable[[str], Any]
"""A kind, H or L -> its model, which an adaptive class runs."""


def bundled(name: str, device: torch.device, dtype: torch.dtype | None = None) -> MakeModel:
    """Return what loads the bundled models of that name, by default in the dtype that they get on the device."""

    def load(kind: str) -> Any:
        chosen: dict[str, Any] = {} if dtype is None else {"dtype": dtype}
        folder = str(CHECKPOINTS / f"{CHECKPOINT_OF[name]}-{kind}")
        return load_pretrained_model(folder, None, "bundled", device_map=None, device=str(device), **chosen)[1]

    return load


def stack(
    layers: int, device: torch.device, dtype: torch.dtype | None = None, sizes: Mapping[str, int] | None = None
) -> MakeModel:
    """Return what makes a stack of layers, in bfloat16 by default; both kinds have the same weights.

    sizes: by default those of a 7B model, with as many of its vocabulary as of its layers: the output layer would
    otherwise have too much weight in a short stack, and no plan cuts it.
    """
    vocabulary = SHAPES_7B["vocab_size"] * layers // LAYERS_7B
    models = Models.make(layers, device, dtype or torch.bfloat16, sizes or {**SHAPES_7B, "vocab_size": vocabulary})
    return partial(dict.__getitem__, models.ada)
