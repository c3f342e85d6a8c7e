"""Counts the bytes that a decode step must read: weights that some row's plan keeps, and what rows attend to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ada.scheduling.execution_plan import ExecutionPlan, LayerPlan


@dataclass(frozen=True)
class DecoderBytes:
    """Sizes of a Llama-like decoder; biases, norms and one embedding a row are left out, far below a percent.

    width: D; neurons: F of an MLP; heads: query heads; head_dim: d; element: bytes of a number.
    """

    width: int
    neurons: int
    heads: int
    head_dim: int
    kv_heads: int
    vocabulary: int
    element: int

    @classmethod
    def of(cls, model: Any) -> DecoderBytes:
        """Read the sizes from a model."""
        config = model.config
        return cls(
            width=config.hidden_size,
            neurons=config.intermediate_size,
            heads=config.num_attention_heads,
            head_dim=model.model.layers[0].self_attn.head_dim,
            kv_heads=config.num_key_value_heads,
            vocabulary=config.vocab_size,
            element=model.lm_head.weight.element_size(),
        )

    def weights(self, plans: Sequence[ExecutionPlan]) -> int:
        """Return the bytes of weights that a step of rows under these plans reads, the output layer's included.

        What several rows keep is read once.
        """
        layers = sum(self._layer(any_of(layers), plans[0].num_switches) for layers in zip(*_layers(plans), strict=True))
        return self.element * (layers + self.width * self.vocabulary)

    def cache(self, plans: Sequence[ExecutionPlan], columns: float) -> int:
        """Return the bytes of keys and values of ``columns`` positions that each row's kept heads attend to."""
        groups = sum(plan.heads_run for plan in plans)
        return int(self.element * 2 * groups * self.head_dim * columns)

    def step(self, plans: Sequence[ExecutionPlan], columns: float) -> int:
        """Return the bytes that a step must read."""
        return self.weights(plans) + self.cache(plans, columns)

    def _layer(self, plan: LayerPlan, num_switches: int) -> int:
        """Numbers in the weights of what a plan keeps: q and o of a group's query heads, k, v; gate, up, down."""
        queries = self.heads // self.kv_heads
        attention = len(plan.heads) * (2 * queries + 2) * self.head_dim * self.width
        return attention + 3 * plan.neurons(self.neurons, num_switches) * self.width


def _layers(plans: Sequence[ExecutionPlan]) -> list[tuple[LayerPlan, ...]]:
    return [plan.layers for plan in plans]


def any_of(plans: Sequence[LayerPlan]) -> LayerPlan:
    """Return what at least one of several rows keeps of a layer."""
    heads = sorted({head for plan in plans for head in plan.heads})
    groups = sorted({group for plan in plans for group in plan.neuron_groups})
    return LayerPlan(tuple(heads), tuple(groups))
