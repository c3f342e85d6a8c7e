"""Counts the memory of a model by what holds it, from its config alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModel

from ada.cost.products import head_size
from ada.cost.sizes import Sizes
from ada.execution.layer_weights import projections
from ada.memory.narrow_limit import DefaultLimit

NF4_BLOCK, NF4_BLOCKS = 64, 256  # weights of a scale of one byte, and such scales of one in float32


@dataclass(frozen=True)
class Storage:
    """How weights are stored. bits: of a weight of the decoder's projections; element_bytes: of any other number.

    cuttable: whether a plan can cut them.
    """

    bits: int
    element_bytes: int
    cuttable: bool = True

    def projection_bytes(self, elements: int, rows: int) -> int:
        """Return the bytes of projections with so many weights and output rows, scales included.

        In 8 bits each row has a scale in bfloat16; 4 bits are NF4 with double quantisation (Dettmers et al. 2023, arXiv
        2305.14314).
        """
        stored = elements * self.bits // 8
        if self.bits == 8:
            return stored + 2 * rows
        if self.bits == 4:
            blocks = elements // NF4_BLOCK
            return stored + blocks + 4 * (blocks // NF4_BLOCKS)
        return stored


STORAGES = {
    "float32": Storage(32, 4),
    "16 bits": Storage(16, 2),
    "8 bits": Storage(8, 2),
    "4 bits": Storage(4, 2, cuttable=False),
}


@dataclass(frozen=True)
class Parameters:
    """Numbers of a model. projections, rows: weights and output rows of all layers' projections; tunable: of the
    former, those of tunable layers; others: embeddings, output layer, norms and biases.
    """

    projections: int
    rows: int
    tunable: int
    others: int
    projector: int
    scheduler: int
    token_scorer: int
    vision_tower: int

    @classmethod
    def of(cls, sizes: Sizes) -> Parameters:
        """Count the parameters of the model itself, made without memory."""
        from ada.model.families import ADAPTIVE_MODELS

        model_class: Any = next(k for k in ADAPTIVE_MODELS.values() if k.config_class is type(sizes.config))
        with torch.device("meta"):
            model = model_class(sizes.config)
            tower = None if sizes.vision is None else AutoModel.from_config(sizes.vision)
        linears = [projections(layer) for layer in model.model.layers]
        weights = [sum(linear.weight.numel() for linear in layer) for layer in linears]
        decoder = {id(p): p.numel() for p in _decoder_parameters(model)}
        return cls(
            sum(weights),
            sum(linear.out_features for layer in linears for linear in layer),
            sum(weights[sizes.units.num_prefix_layers :]),
            sum(decoder.values()) - sum(weights),
            _count(sizes.projector),
            _count(model.scheduler) if sizes.has_scheduler else 0,
            _count(model.token_scorer),
            _count(tower),
        )


def _decoder_parameters(model: Any) -> Iterator[torch.nn.Parameter]:
    """The parameters of the language model; tied embeddings come twice."""
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if not any(part in name for part in ("mm_projector.", "vision_tower.", "scheduler.", "token_scorer.")):
            yield parameter


def _count(module: torch.nn.Module | None) -> int:
    return 0 if module is None else sum(p.numel() for p in module.parameters())


@dataclass(frozen=True)
class Footprint:
    """Bytes of a model. weights: by part; tunable_bytes: of what a plan can cut; kv_bytes: of one position of one row;
    activation_bytes: the peak of a prefill, for each position that is read.
    """

    weights: dict[str, int]
    tunable_bytes: int
    kv_bytes: int
    activation_bytes: int

    @classmethod
    def of(cls, sizes: Sizes, storage: Storage, parameters: Parameters) -> Footprint:
        """Count a model of ``sizes`` and ``parameters``, stored as ``storage`` says."""
        config, element = sizes.config, storage.element_bytes
        decoder = storage.projection_bytes(parameters.projections, parameters.rows) + element * parameters.others
        weights = {"decoder": decoder}
        others = ("projector", "scheduler", "token_scorer", "vision_tower")
        weights |= {name: element * getattr(parameters, name) for name in others}
        width = config.num_key_value_heads * head_size(config)
        # As an MLP is widest: embeddings without and with the latency token, what enters the MLP, its norm and what
        # leaves it; gate and up, and their product.
        activations = 5 * config.hidden_size + 3 * config.intermediate_size
        return cls(
            weights,
            storage.bits * parameters.tunable // 8 if storage.cuttable else 0,
            2 * config.num_hidden_layers * width * element,
            activations * element,
        )

    @property
    def weight_bytes(self) -> int:
        """The bytes of all weights."""
        return sum(self.weights.values())

    def narrow_bytes(self, memory: int) -> int:
        """Return the default limit of narrow layers on a device of so many bytes, once the weights are loaded."""
        if not self.tunable_bytes:
            return 0
        return DefaultLimit(self.tunable_bytes).of(max(0, memory - self.weight_bytes))
