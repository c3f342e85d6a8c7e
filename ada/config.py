"""The config of the published format: LLaVA's keys and the scheduler's."""

from __future__ import annotations

from typing import Any

from llava.model.language_model.llava_llama import LlavaConfig


class AdaLlavaConfig(LlavaConfig):
    """``num_prefix_layers`` (P, by default half of the layers), ``scheduler_type`` ("H" or "L"),
    ``scheduler_rank``, ``token_selecting`` ("none"; the PruMerge variants are read but not yet run)."""

    model_type = "ada_llava_llama"

    num_prefix_layers: int | None = None
    scheduler_type: str = "H"
    scheduler_rank: int = 8
    token_selecting: str = "none"

    def __post_init__(self, **kwargs: Any) -> None:
        if self.num_prefix_layers is None:
            self.num_prefix_layers = max(1, self.num_hidden_layers // 2)
        super().__post_init__(**kwargs)
