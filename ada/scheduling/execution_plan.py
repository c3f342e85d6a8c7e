"""Describes which heads, neuron groups and layers of the decoder run: the execution plan, frozen and hashable."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from llava.errors import OptionError


@dataclass(frozen=True)
class LayerPlan:
    """What runs of one layer: indices of attention heads (key-value groups) and of neuron groups, ascending."""

    heads: tuple[int, ...]
    neuron_groups: tuple[int, ...]

    @property
    def is_empty(self) -> bool:
        """Whether nothing runs, so that the layer passes its input on."""
        return not self.heads and not self.neuron_groups

    def neurons(self, width: int, num_groups: int) -> int:
        """Return the number of MLP neurons that run, of ``width`` in ``num_groups`` groups."""
        bounds = group_bounds(width, num_groups)
        return sum(bounds[group][1] - bounds[group][0] for group in self.neuron_groups)


@dataclass(frozen=True)
class ExecutionPlan:
    """One ``LayerPlan`` per decoder layer, and how many heads, and how many neuron groups, a layer has (``A``)."""

    layers: tuple[LayerPlan, ...]
    num_switches: int

    @classmethod
    def from_gates(cls, gates: torch.Tensor) -> ExecutionPlan:
        """Read a plan from gates (L, 2, A), 0 or 1: heads, then neuron groups."""
        rows = gates.detach().bool().tolist()
        on = [[tuple(i for i, x in enumerate(component) if x) for component in layer] for layer in rows]
        return cls(tuple(LayerPlan(heads, groups) for heads, groups in on), gates.shape[-1])

    @classmethod
    def full(cls, num_layers: int, num_switches: int) -> ExecutionPlan:
        """Return the plan under which every layer runs dense."""
        everything = tuple(range(num_switches))
        return cls((LayerPlan(everything, everything),) * num_layers, num_switches)

    def gates(self) -> torch.Tensor:
        """Return the plan as gates (L, 2, A), float32, 0 or 1."""
        gates = torch.zeros(len(self.layers), 2, self.num_switches)
        for gate, layer in zip(gates, self.layers, strict=True):
            gate[0, list(layer.heads)] = 1
            gate[1, list(layer.neuron_groups)] = 1
        return gates

    def is_full(self, layer: int) -> bool:
        """Return whether this layer runs dense."""
        plan = self.layers[layer]
        return len(plan.heads) == len(plan.neuron_groups) == self.num_switches

    def is_within(self, other: ExecutionPlan) -> bool:
        """Return whether all that runs runs under ``other``, too."""
        pairs = zip(self.layers, other.layers, strict=True)
        return all(
            set(own.heads) <= set(its.heads) and set(own.neuron_groups) <= set(its.neuron_groups) for own, its in pairs
        )

    def with_dense(self, layers: Iterable[int]) -> ExecutionPlan:
        """Return the same plan with these layers running dense."""
        everything = tuple(range(self.num_switches))
        dense = frozenset(layers)
        kept = (LayerPlan(everything, everything) if i in dense else plan for i, plan in enumerate(self.layers))
        return ExecutionPlan(tuple(kept), self.num_switches)

    @property
    def layers_run(self) -> int:
        """Layers of which anything runs."""
        return sum(not layer.is_empty for layer in self.layers)

    @property
    def heads_run(self) -> int:
        """Attention heads that run, over all layers (with grouped-query attention, key-value groups)."""
        return sum(len(layer.heads) for layer in self.layers)

    @property
    def neuron_groups_run(self) -> int:
        """Neuron groups that run, over all layers."""
        return sum(len(layer.neuron_groups) for layer in self.layers)

    def neurons_run(self, width: int) -> int:
        """Return the number of MLP neurons that run, over all layers of ``width`` neurons each."""
        return sum(layer.neurons(width, self.num_switches) for layer in self.layers)

    @property
    def share(self) -> float:
        """Executed share of all switches, in [0, 1]."""
        return (self.heads_run + self.neuron_groups_run) / (2 * self.num_switches * len(self.layers))

    def to_json(self) -> dict[str, Any]:
        """Return ``{"num_switches": A, "layers": [{"heads": [...], "neuron_groups": [...]}, ...]}``."""
        layers = [{"heads": list(x.heads), "neuron_groups": list(x.neuron_groups)} for x in self.layers]
        return {"num_switches": self.num_switches, "layers": layers}

    def to_short_json(self) -> dict[str, Any]:
        """Return the same in few characters, for files with one plan a line.

        A layer is a hexadecimal number whose bits are the switches, the first one lowest:
        ``{"num_switches": A, "heads": "f 3 0", "neuron_groups": "f c 0"}``.
        """
        return {
            "num_switches": self.num_switches,
            "heads": " ".join(f"{_bit_field(x.heads):x}" for x in self.layers),
            "neuron_groups": " ".join(f"{_bit_field(x.neuron_groups):x}" for x in self.layers),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any] | str) -> ExecutionPlan:
        """Read what ``to_json`` or ``to_short_json`` wrote. Raises OptionError for anything else."""
        try:
            fields = json.loads(data) if isinstance(data, str) else data
            switches = int(fields["num_switches"])
            if "layers" not in fields:
                heads, groups = _bits(fields["heads"]), _bits(fields["neuron_groups"])
                pairs = zip(heads, groups, strict=True)
                fields = {"layers": [{"heads": one, "neuron_groups": other} for one, other in pairs]}
            layers = tuple(
                LayerPlan(_indices(x["heads"], switches), _indices(x["neuron_groups"], switches))
                for x in fields["layers"]
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise OptionError(f"not an execution plan ({error}); expected what ExecutionPlan.to_json writes") from error
        return cls(layers, switches)


def _indices(values: Sequence[int], switches: int) -> tuple[int, ...]:
    indices = tuple(sorted(set(values)))
    if len(indices) != len(values) or any(type(i) is not int or not 0 <= i < switches for i in indices):
        raise ValueError(f"{list(values)} are not distinct integers from 0 to {switches - 1}")
    return indices


def _bit_field(indices: Iterable[int]) -> int:
    return sum(1 << index for index in indices)


def _bits(text: str) -> list[list[int]]:
    numbers = [int(number, 16) for number in text.split()]
    return [[i for i in range(number.bit_length()) if number >> i & 1] for number in numbers]


def group_bounds(num_channels: int, num_groups: int) -> list[tuple[int, int]]:
    """Split the MLP's channels into contiguous groups [start, end); the first ``F mod A`` are one channel longer."""
    size, longer = divmod(num_channels, num_groups)
    starts = [g * size + min(g, longer) for g in range(num_groups + 1)]
    return list(itertools.pairwise(starts))
