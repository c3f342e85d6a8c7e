"""Chooses token after token: the decoding loop of ``generate``, in place of transformers'."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList
from transformers.generation import GenerateDecoderOnlyOutput

from ada.engine.engine_rows import EngineRows
from ada.engine.loop_settings import LoopSettings
from ada.execution.call_state import Execution
from ada.latency.pacer import Pacer
from ada.quality.cascade import Cascade
from ada.reuse.call_reuse import CallReuse
from llava.model.multimodal.embedded_batch import EmbeddedBatch


@dataclass
class EngineLoop:
    """One call's loop, greedy or sampled, of several rows; also as transformers' ``custom_generate``.

    batch: the prompts, padded on the left; rows: where they are read into and stay, by default for the call alone;
    pacer: what keeps promises for the tokens of an answer of one row; reuse: what is known of its prompt;
    cascade: judges its first token, and has the prompt read again where that is not sure.
    """

    batch: EmbeddedBatch
    execution: Execution
    streamer: Any = None
    rows: EngineRows | None = None
    pacer: Pacer | None = None
    reuse: CallReuse | None = None
    cascade: Cascade | None = None
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
        """Decode with what transformers has prepared; return what its own loop returns."""
        return self.run(model, LoopSettings.prepared(generation_config, logits_processor, stopping_criteria))

    def run(self, model: Any, settings: LoopSettings) -> Any:
        """Return the new tokens (B, t), or transformers' output with them; there is no ``past_key_values``."""
        if self.rows is not None:
            tokens = self._decode(self.rows, settings)
        else:
            with model.idle_rows.of(model, len(self.batch.embeds), self.batch.embeds) as rows:
                tokens = self._decode(rows, settings)
        if self.streamer is not None:
            self.streamer.end()
        if not settings.returns_dict:
            return tokens
        scores, logits = tuple(self._scores) or None, tuple(self._logits) or None
        return GenerateDecoderOnlyOutput(sequences=tokens, scores=scores, logits=logits)

    def _decode(self, rows: EngineRows, settings: LoopSettings) -> torch.Tensor:
        """Read the prompts and choose tokens until every row has ended; return them (B, t)."""
        device, count = self.batch.embeds.device, len(self.batch.embeds)
        chosen = torch.empty(count, 0, dtype=torch.long, device=device)
        running = torch.ones(count, dtype=torch.bool, device=device)
        logits = rows.read(self.batch, self.execution, self.reuse)
        if self.cascade is not None and not self.cascade.accepts(logits):
            rows.remove(rows.rows[-1])
            self.batch, self.execution = self.cascade.begin_again()
            logits = rows.read(self.batch, self.execution, self.cascade.reuse)
        rows.rows[-1].pacer = self.pacer
        while True:
            scores = settings.processors(chosen, logits)
            self._keep(settings, scores, logits)
            tokens = _next(scores, settings.sample)
            if settings.pad is not None:
                tokens = torch.where(running, tokens, settings.pad)
            chosen = torch.cat([chosen, tokens[:, None]], dim=1)
            if self.streamer is not None:
                self.streamer.put(tokens.cpu())
            running = running & ~settings.criteria(chosen, scores)
            if not running.any():
                return chosen
            logits = rows.step(tokens)

    def _keep(self, settings: LoopSettings, scores: torch.Tensor, logits: torch.Tensor) -> None:
        if settings.keeps_scores:
            self._scores.append(scores)
        if settings.keeps_logits:
            self._logits.append(logits)


def _next(scores: torch.Tensor, sample: bool) -> torch.Tensor:
    """The next token (R,) of each row."""
    if sample:
        return torch.multinomial(scores.softmax(dim=-1), num_samples=1)[:, 0]
    return scores.argmax(dim=-1)
