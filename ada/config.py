"""The config of the published format: LLaVA's keys and the scheduler's."""

from __future__ import annotations

import logging
from typing import Any

from llava.errors import OptionError
from llava.model.language_model.llava_llama import LlavaConfig

log = logging.getLogger(__name__)


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


def check_token_selecting(config: AdaLlavaConfig) -> None:
    """Say that image tokens are not pruned where the checkpoint was trained with fewer; refuse unknown ways."""
    if config.token_selecting in ("prumerge", "prumerge+"):
        log.warning("token_selecting is %r, which is not built yet: every image token is kept", config.token_selecting)
    elif config.token_selecting != "none":
        raise OptionError(f"token_selecting is {config.token_selecting!r}; expected none, prumerge or prumerge+")
