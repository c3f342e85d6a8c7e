"""Chooses token after token: the decoding loop of ``generate``, in place of transformers'."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList
from transformers.generation import GenerateDecoderOnlyOutput

from ada.engine.engine_rows import EngineRows
from ada.execution.call_state import Execution
from llava.model.multimodal.embedded_batch import EmbeddedBatch


@dataclass
class EngineLoop:
    """One call's loop, as transformers' ``custom_generate``: greedy or sampled, of several rows.

    batch: the prompts, padded on the left; rows: where they are read into and stay, by default for the call alone.
    """

    batch: EmbeddedBatch
    execution: Execution
    streamer: Any = None
    rows: EngineRows | None = None
    _scores: list[torch.Tensor] = field(default_factory=list, init=False)
    _logits: list[torch.Tensor] = field(default_factory=list, init=False)

    def __call__(
        self,
        model: Any,
        input_ids: torch.Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        **_: Any,
    ) -> Any:
        """Return what transformers' loop returns; there is no ``past_key_values``."""
        if self.rows is not None:
            input_ids = self._decode(self.rows, input_ids, logits_processor, stopping_criteria, generation_config)
        else:
            with model.idle_rows.of(model, len(input_ids), self.batch.embeds) as rows:
                input_ids = self._decode(rows, input_ids, logits_processor, stopping_criteria, generation_config)
        if self.streamer is not None:
            self.streamer.end()
        return self._output(generation_config, input_ids)

    def _decode(
        self,
        rows: EngineRows,
        input_ids: torch.Tensor,
        processors: LogitsProcessorList,
        criteria: StoppingCriteriaList,
        settings: GenerationConfig,
    ) -> torch.Tensor:
        """Read the prompts and choose tokens until every row has ended; return them (B, t)."""
        logits = rows.read(self.batch, self.execution)
        running = torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
        while True:
            scores = processors(input_ids, logits)
            self._keep(settings, scores, logits)
            tokens = _chosen(scores, settings.do_sample)
            if settings._pad_token_tensor is not None:
                tokens = torch.where(running, tokens, settings._pad_token_tensor)
            input_ids = torch.cat([input_ids, tokens[:, None]], dim=1)
            if self.streamer is not None:
                self.streamer.put(tokens.cpu())
            running = running & ~criteria(input_ids, scores)
            if not running.any():
                return input_ids
            logits = rows.step(tokens)

    def _keep(self, settings: GenerationConfig, scores: torch.Tensor, logits: torch.Tensor) -> None:
        if settings.output_scores:
            self._scores.append(scores)
        if settings.output_logits:
            self._logits.append(logits)

    def _output(self, settings: GenerationConfig, input_ids: torch.Tensor) -> Any:
        if not settings.return_dict_in_generate:
            return input_ids
        scores, logits = tuple(self._scores) or None, tuple(self._logits) or None
        return GenerateDecoderOnlyOutput(sequences=input_ids, scores=scores, logits=logits)


def _chosen(scores: torch.Tensor, sample: bool) -> torch.Tensor:
    """The next token (R,) of each row."""
    if sample:
        return torch.multinomial(scores.softmax(dim=-1), num_samples=1)[:, 0]
    return scores.argmax(dim=-1)
