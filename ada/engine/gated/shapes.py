"""Holds a decoder's sizes, as its kernels need them."""

from __future__ import annotations

from dataclasses import dataclass

from llava.protocols import DecoderConfig


@dataclass(frozen=True)
class DecoderShapes:
    """D hidden ``width``, H ``heads``, A ``kv_heads`` (and neuron groups) a layer, d ``head_dim``, F ``neurons``."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    neurons: int
    eps: float

    @classmethod
    def of(cls, config: DecoderConfig) -> DecoderShapes:
        """Read the sizes from a Llama-like decoder's config."""
        head_dim: int | None = getattr(config, "head_dim", None)
        return cls(
            layers=config.num_hidden_layers,
            width=config.hidden_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_dim=head_dim or config.hidden_size // config.num_attention_heads,
            neurons=config.intermediate_size,
            eps=getattr(config, "rms_norm_eps"),  # noqa: B009  # only decoders with RMSNorm have it
        )

    @property
    def shared(self) -> int:
        """Query heads of one key-value head."""
        return self.heads // self.kv_heads
