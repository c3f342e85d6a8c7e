"""AdaLLaVA of kind L on vLLM's Llama: each request's later layers run as the scheduler decides in its prefill.

A request's prompt comes as embeddings that end with the latency token, which is known by its value: there is one for
each number of units, apart from rounding. Prompts without one run all layers. A plan is kept under the number of the
request's first block of the KV cache, which no other request has while it runs; so blocks must not be shared (no prefix
caching), and prompts must come whole (no chunked prefill). Everything runs eagerly.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.forward_context import get_forward_context
from vllm.model_executor.models.llama import LlamaForCausalLM, LlamaModel
from vllm.model_executor.models.utils import AutoWeightsLoader

from ada.scheduling.scheduler import Scheduler
from ada.scheduling.selection import select_layers
from ada.scheduling.units import Units
from llava.errors import OptionError

UNREAD = ("model.mm_projector.", "model.vision_tower.", "token_scorer.")  # images come embedded

ROUNDING = 0.01  # of an embedding's norm


class PlannedLlama(LlamaModel):  # type: ignore[misc]
    """Runs a batch's tokens, each by the plan of its request."""

    scheduler: Scheduler  # the language model's, which sets it

    def __init__(self, *, vllm_config: VllmConfig, **keywords: Any) -> None:
        super().__init__(vllm_config=vllm_config, **keywords)
        self.units = Units.of(self.config)
        self._plans: dict[int, torch.Tensor] = {}  # by first block: which tunable layers run (N,)
        self._tokens: torch.Tensor | None = None

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        """Return the last hidden states (T, D) of all rows' tokens, one after the other."""
        embeds: torch.Tensor = self.embed_input_ids(input_ids) if inputs_embeds is None else inputs_embeds
        hidden, residual = embeds, torch.zeros_like(embeds)
        first = self.units.num_layers - self.units.num_tunable_layers
        for layer in self.layers[:first]:
            hidden, residual = layer(positions, hidden, residual)
        runs = self._plan(embeds, hidden + residual)  # (N, T)
        for layer, on in zip(self.layers[first:], runs, strict=True):
            if on.any():
                before = None if on.all() else (hidden.clone(), residual.clone())  # a layer writes into both
                hidden, residual = layer(positions, hidden, residual)
                if before is not None:
                    hidden = torch.where(on[:, None], hidden, before[0])
                    residual = torch.where(on[:, None], residual, before[1])
        last: torch.Tensor = self.norm(hidden, residual)[0]
        return last

    def _plan(self, embeds: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Return which tunable layers each token runs (N, T); plans are made of the prompts' last hidden states."""
        runs = torch.ones(self.units.num_tunable_layers, len(hidden), dtype=torch.bool, device=hidden.device)
        metadata = get_forward_context().attn_metadata
        if not metadata:  # vLLM measures its memory
            return runs
        batch = next(iter(metadata.values()))
        starts = batch.query_start_loc.tolist()
        blocks, lengths = batch.block_table[:, 0].tolist(), batch.seq_lens.tolist()
        for block, length, start, end in zip(blocks, lengths, starts, starts[1:], strict=False):
            if length == end - start:  # a prompt; with its answer so far, where vLLM had to drop the request's cache
                self._plans[block] = self._plan_of(embeds[start:end], hidden[start:end])
            runs[:, start:end] = self._plans[block][:, None]
        return runs

    def _plan_of(self, embeds: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Return the plan (N,) of a prompt by its embeddings (T, D) and their hidden states as they enter layer P."""
        if self._tokens is None:  # (tunable + 1, D)
            counts = torch.arange(self.units.tunable + 1, device=embeds.device)
            self._tokens = self.scheduler.encode(counts / (self.units.tunable + 1))[:, 0].float()
        apart, units = torch.cdist(embeds.float(), self._tokens).min(dim=1)
        [found] = (apart <= ROUNDING * embeds.float().norm(dim=1)).nonzero(as_tuple=True)
        if not len(found):
            return torch.ones(self.units.num_tunable_layers, dtype=torch.bool, device=embeds.device)
        return select_layers(self.scheduler(hidden[found[-1:]]), units[found[-1:]])[0].bool()


class BudgetedLlama(LlamaForCausalLM):  # type: ignore[misc]
    """The language model of an AdaLLaVA checkpoint of kind L."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "", **keywords: Any) -> None:
        check(vllm_config)
        super().__init__(vllm_config=vllm_config, prefix=prefix, **keywords)
        self.scheduler = Scheduler(self.model.units, self.config.hidden_size)
        object.__setattr__(self.model, "scheduler", self.scheduler)  # one parent, for the names of weights

    def _init_model(self, vllm_config: VllmConfig, prefix: str = "", **keywords: Any) -> PlannedLlama:
        return PlannedLlama(vllm_config=vllm_config, prefix=prefix, **keywords)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Load a checkpoint's weights, without what images need."""
        read = ((name, weight) for name, weight in weights if not name.startswith(UNREAD))
        loaded: set[str] = AutoWeightsLoader(self).load_weights(read)
        return loaded


def check(vllm_config: VllmConfig) -> None:
    """Raise OptionError where vLLM would run the model otherwise than it needs."""
    config = vllm_config.model_config.hf_config
    if config.scheduler_type != "L":
        raise OptionError(f"this checkpoint is of kind {config.scheduler_type}; in vLLM only kind L runs")
    wrong = {
        "enable_chunked_prefill=False": vllm_config.scheduler_config.enable_chunked_prefill,
        "enable_prefix_caching=False": vllm_config.cache_config.enable_prefix_caching,
        "enforce_eager=True": not vllm_config.model_config.enforce_eager,
        "pipeline_parallel_size=1": vllm_config.parallel_config.pipeline_parallel_size > 1,
    }
    if missing := [setting for setting, is_wrong in wrong.items() if is_wrong]:
        raise OptionError(f"AdaLLaVA in vLLM needs {', '.join(missing)}")
