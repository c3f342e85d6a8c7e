"""LLaVA: large language and vision assistant, on today's transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llava.model.language_model.llava_llama import LlavaLlamaForCausalLM

__all__ = ["LlavaLlamaForCausalLM"]


def __getattr__(name: str) -> Any:
    """Import upstream's one name at this level once it is asked for: most programs' parts need no torch."""
    if name != "LlavaLlamaForCausalLM":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from llava.model.language_model.llava_llama import LlavaLlamaForCausalLM

    return LlavaLlamaForCausalLM
