"""Computes Llama-like decoder layers as plain functions of joined weights.

A row of ``hidden`` (N, D) is one position: of one prompt in prefill, of one sequence each in a decode step. What
differs, where keys and values go and which are attended to, is the caller's ``attend``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ada.execution.layer_weights import LayerWeights, Projection, cut
from ada.execution.linear import MIN_POSITIONS
from ada.execution.narrow_cache import NarrowCache
from ada.scheduling.execution_plan import ExecutionPlan, LayerPlan

Rope = tuple[torch.Tensor, torch.Tensor]
"""Cosines and signed sines (N, 1, d) of the positions of N rows."""

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Queries (N, H, d), keys and values (N, K, d) of new positions, positions encoded -> attention's output (N, H, d)."""


@dataclass(frozen=True)
class Gates:
    """What of a dense layer counts for each row: heads (N, H, 1) and channels of the MLP (N, F), 0 or 1.

    Biases of a block of which nothing counts are left out, as where the layer is not run.
    """

    heads: torch.Tensor
    channels: torch.Tensor


@dataclass(frozen=True, eq=False)
class Norm:
    """Normalises by the root mean square (Zhang and Sennrich 2019, arXiv 1910.07467).

    With D channels, weight w and epsilon e that is ``x sqrt(D) w / hypot(|x|, sqrt(D e))``: half the time of torch's
    own function for one position on a CPU. scaled: ``sqrt(D) w``, float32; minimum: ``sqrt(D e)``, (1, 1).
    """

    scaled: torch.Tensor
    minimum: torch.Tensor

    @classmethod
    def of(cls, module: Any) -> Norm:
        """Read a norm of transformers'."""
        weight = module.weight.detach().float()
        return cls(weight * len(weight) ** 0.5, weight.new_full((1, 1), (len(weight) * module.variance_epsilon) ** 0.5))

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """Normalise ``hidden`` (N, D)."""
        length = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True, dtype=torch.float32)
        return (hidden * self.scaled).div_(length.hypot_(self.minimum)).to(hidden.dtype)


@dataclass(frozen=True, eq=False)
class DecoderLayer:
    """What a layer's function reads of a layer of transformers', besides the weights: a step has no time to look it up.

    scale: of the attention's scores.
    """

    module: Any
    before_attention: Norm
    before_mlp: Norm
    activation: Callable[[torch.Tensor], torch.Tensor]
    scale: float

    @classmethod
    def of(cls, module: Any) -> DecoderLayer:
        """Read a layer of transformers'."""
        norms = Norm.of(module.input_layernorm), Norm.of(module.post_attention_layernorm)
        return cls(module, *norms, module.mlp.act_fn.forward, module.self_attn.scaling)


class Decoder:
    """A model's decoder, as what its layers' functions read.

    head_dim: channels ``d`` of a head; kv_heads: key-value heads of a dense layer, each with ``group`` query heads.
    """

    def __init__(self, model: Any, cache: NarrowCache) -> None:
        self.model, self.cache = model, cache
        self.layers = [DecoderLayer.of(layer) for layer in model.model.layers]
        self.norm = Norm.of(model.model.norm)
        self.head_dim = int(self.layers[0].module.self_attn.head_dim)
        self.kv_heads = int(model.config.num_key_value_heads)
        self.group = int(model.config.num_attention_heads) // self.kv_heads

    def dense(self, index: int) -> LayerWeights:
        """Return the dense weights of a layer."""
        return self.cache.dense(index, self.layers[index].module)

    def narrow(self, index: int, plan: LayerPlan) -> LayerWeights | None:
        """Return the weights that a plan keeps of a layer; None where the cache has no memory for them."""
        return self.cache.get(index, self.layers[index].module, plan, self.kv_heads)

    def cut(self, plan: ExecutionPlan, index: int) -> LayerWeights:
        """Cut what a prompt's plan keeps of a layer, for one use: memory that it frees is what the next layer takes."""
        return cut(self.dense(index), plan.layers[index], self.kv_heads, take=None)

    def run(
        self,
        index: int,
        weights: LayerWeights,
        hidden: torch.Tensor,
        rope: Rope,
        attend: Attend,
        gates: Gates | None = None,
    ) -> torch.Tensor:
        """Run layer ``index`` with ``weights`` on ``hidden`` (N, D); gates: where rows need less than runs."""
        layer = self.layers[index]
        if weights.qkv is not None and weights.output is not None:
            normed = layer.before_attention(hidden)
            hidden = added(hidden, weights.output, *self._attention(weights, normed, rope, attend, gates))
        if weights.gate_up is not None and weights.down is not None:
            normed = layer.before_mlp(hidden)
            gate, up = weights.gate_up(normed).chunk(2, dim=-1)
            neurons = layer.activation(gate).mul_(up)
            if gates is None:
                return added(hidden, weights.down, neurons)
            hidden = added(hidden, weights.down, neurons * gates.channels, gates.channels)
        return hidden

    def _attention(
        self, weights: LayerWeights, normed: torch.Tensor, rope: Rope, attend: Attend, gates: Gates | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What the attention's output reads (N, H d), and the gates of its heads."""
        states = weights.qkv(normed).view(normed.shape[0], -1, self.head_dim)  # type: ignore[misc]
        count = states.shape[1] // (self.group + 2)
        turned, values = torch.split(states, [states.shape[1] - count, count], dim=1)
        queries, keys = torch.split(rotated(turned, rope), [count * self.group, count], dim=1)
        mixed = attend(queries, keys, values)
        if gates is None:
            return mixed.flatten(1), None
        return (mixed * gates.heads).flatten(1), gates.heads

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, vocabulary), float32, of what leaves the last layer, (N, D)."""
        logits: torch.Tensor = self.model.lm_head(self.norm(hidden))
        return logits.float()


def rotated(states: torch.Tensor, rope: Rope) -> torch.Tensor:
    """Encode positions into states (N, H, d): rotary, halves paired as in Llama (Su et al. 2021, arXiv 2104.09864)."""
    cosines, signed_sines = rope
    return torch.addcmul(states * cosines, states.roll(states.shape[-1] // 2, -1), signed_sines)


def added(
    hidden: torch.Tensor, projection: Projection, x: torch.Tensor, gates: torch.Tensor | None = None
) -> torch.Tensor:
    """Return ``hidden`` (N, D) plus a block's output: the projection of ``x`` (N, in).

    gates: (N, ...) of the block; where all of a row's are 0 it adds nothing, not even its bias.
    """
    if projection.bias is None and projection.scale is None and x.shape[0] < MIN_POSITIONS:
        return torch.addmm(hidden, x, projection.weight.t())
    if projection.bias is None or gates is None:
        return projection(x).add_(hidden)
    runs = gates.flatten(1).any(dim=1, keepdim=True)
    return hidden + projection(x) * runs
