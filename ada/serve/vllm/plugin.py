"""Names the model to vLLM, which calls ``register`` in each of its processes (``vllm.general_plugins``)."""

from __future__ import annotations

ARCHITECTURE = "AdaLlavaLlamaForCausalLM"


def register() -> None:
    """Make vLLM run checkpoints of kind L by ``ada.serve.vllm.model``, and read their configs by ``ada.config``."""
    from transformers import AutoConfig
    from vllm import ModelRegistry

    from ada.config import AdaLlavaConfig

    AutoConfig.register(AdaLlavaConfig.model_type, AdaLlavaConfig, exist_ok=True)
    ModelRegistry.register_model(ARCHITECTURE, "ada.serve.vllm.model:BudgetedLlama")
