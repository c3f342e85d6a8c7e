"""Lists the operations of a decoder layer as the published AdaLLaVA code counts them.

Its rules differ from those of ``ada.cost.products``: every operation of a layer, its weights and its activations are
scaled by the kept share of its heads, an MLP's too; new keys and values, and in decode the ones read, are those of all
heads, while prefill reads as many as there are query heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from llava.protocols import DecoderConfig


@dataclass(frozen=True)
class Setting:
    """How the decoder runs: sequences at once, bits of a number by kind, and whether attention is fused."""

    batch: int = 1
    weight_bits: int = 16
    activation_bits: int = 16
    cache_bits: int = 16
    flash_attention: bool = False


class Operation(NamedTuple):
    """One operation of a layer: FLOPs, and bytes by what they are.

    weights: loaded. read, written: activations. cached, stored: keys and values, loaded and new.
    """

    flops: float
    weights: float = 0.0
    read: float = 0.0
    written: float = 0.0
    cached: float = 0.0
    stored: float = 0.0

    @property
    def moved(self) -> float:
        """Bytes that the operation moves."""
        return self.weights + self.read + self.written + self.cached + self.stored


@dataclass(frozen=True)
class LayerPass:
    """What a layer with ``kept`` of its heads does: ``queries`` new positions attend to ``keys`` positions."""

    config: DecoderConfig
    setting: Setting
    kept: float
    queries: int
    keys: int
    decode: bool

    @property
    def rows(self) -> int:
        """New positions of all sequences."""
        return self.setting.batch * self.queries

    @property
    def share(self) -> float:
        """Kept share of the layer's heads, which scales its MLP too."""
        return self.kept / self.config.num_attention_heads

    def operations(self) -> dict[str, Operation]:
        """Return the layer's operations by the published code's names."""
        return dict([*self._projections(), *self._attention(), *self._elementwise()])

    def _projections(self) -> Iterator[tuple[str, Operation]]:
        width, neurons = self.config.hidden_size, self.config.intermediate_size
        key_width = self.config.num_key_value_heads * (width // self.config.num_attention_heads)
        weight, act, cache = self.setting.weight_bits / 8, self.setting.activation_bits / 8, self.setting.cache_bits / 8
        for name, inner, outer in (
            ("q_proj", width, width),
            ("k_proj", width, key_width),
            ("v_proj", width, key_width),
            ("out_proj", width, width),
            ("gate_proj", width, neurons),
            ("up_proj", width, neurons),
            ("down_proj", neurons, width),
        ):
            to_cache = name in ("k_proj", "v_proj")
            yield (
                name,
                Operation(
                    flops=2 * self.rows * inner * outer * self.share,
                    weights=inner * outer * weight * self.share,
                    read=self.rows * inner * act * self.share,
                    written=0.0 if to_cache else self.rows * outer * act * self.share,
                    stored=self.rows * outer * cache if to_cache else 0.0,
                ),
            )

    def _attention(self) -> Iterator[tuple[str, Operation]]:
        config, act = self.config, self.setting.activation_bits / 8
        head_size = config.hidden_size // config.num_attention_heads
        scores = self.setting.batch * config.num_attention_heads * self.queries * self.keys * self.share
        product, softmax = 2 * scores * head_size, 5 * scores
        attended = self.rows * config.hidden_size * act * self.share  # bytes of the queries, and of the output
        heads_read = config.num_key_value_heads if self.decode else self.kept
        cached = self.setting.batch * self.keys * head_size * self.setting.cache_bits / 8 * heads_read
        if self.setting.flash_attention:  # keys and values are read for each block of ``head_size`` queries
            blocks = -(-self.queries // head_size)
            fused = 2 * product + softmax
            yield "fused", Operation(fused, read=attended, written=2 * scores * act, cached=2 * blocks * cached)
            return
        yield "qk_matmul", Operation(product, read=attended, written=scores * act, cached=cached)
        yield "sv_matmul", Operation(product, read=scores * act, written=attended, cached=cached)
        yield "softmax", Operation(softmax, read=scores * act, written=scores * act)

    def _elementwise(self) -> Iterator[tuple[str, Operation]]:
        numbers = self.rows * self.config.hidden_size
        size = numbers * self.setting.activation_bits / 8
        for name in ("attn_norm", "mlp_norm"):
            yield name, Operation(7 * numbers, read=size, written=size)
        for name in ("attn_add", "mlp_add"):
            yield name, Operation(numbers, read=size, written=size)
        yield "mlp_act", Operation(2 * numbers * self.share, read=2 * size * self.share, written=size * self.share)
