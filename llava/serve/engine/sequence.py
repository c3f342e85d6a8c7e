"""One sequence of a running batch: its prefill, its tokens so far, its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from llava.generation import end_ids, finished_answer, generation_inputs
from llava.model.loaded_model import LoadedModel
from llava.serve.engine.detokenizer import IncrementalDetokenizer, detokenizer_of
from llava.serve.engine.request import ABORT, STOP, EngineRequest, Finished
from llava.serve.engine.row_decoder import RowDecoder
from llava.token_clock import TokenClock


@dataclass(eq=False)
class RunningSequence:
    """A request that has been prefilled and is being decoded.

    output: what ``generate`` returned for the first token; row: the decoder's. row_steps: batch sizes of its decode
    steps, summed.
    """

    loaded: LoadedModel
    request: EngineRequest
    options: Mapping[str, Any]
    clock: TokenClock
    output: Any
    logits_processors: Sequence[LogitsProcessor]
    text: IncrementalDetokenizer
    row: Any
    row_steps: int = 0

    @classmethod
    def prefill(
        cls, loaded: LoadedModel, decoder: RowDecoder, request: EngineRequest, options: Mapping[str, Any]
    ) -> RunningSequence:
        """Read a request's prompt and images, alone and so under its own plan, and emit the first token."""
        model, generation = loaded.model, request.generation
        clock = TokenClock(request.cancelled_event)
        text = detokenizer_of(loaded.tokenizer, generation)
        inputs = generation_inputs(
            model, loaded.tokenizer, loaded.image_processor, generation.prompt, generation.images, options
        )
        ends = [*end_ids(model), *text.stop_ids]
        settings = generation.sampling.keywords(inputs["inputs"], model.generation_config.top_k, ends)
        output, row = decoder.read({"clock": clock, **settings, **inputs})
        processors = settings.get("logits_processor") or LogitsProcessorList()
        sequence = cls(loaded, request, options, clock, output, processors, text, row)
        sequence._emit(int(output.sequences[0, -1]))
        return sequence

    @property
    def ended(self) -> bool:
        """Whether no token is to follow."""
        ids, sampling = self.text.ids, self.request.generation.sampling
        end_token = ids[-1] in end_ids(self.loaded.model) and not sampling.ignore_eos
        full = len(ids) >= sampling.max_new_tokens
        cancelled = self.request.cancelled_event.is_set()
        return end_token or self.text.stopped or full or cancelled or self.clock.ended_by is not None

    def add(self, logits: torch.Tensor, batch_size: int) -> None:
        """Choose the next token by its logits (1, vocabulary), float32, of a decode step of ``batch_size`` rows."""
        for processor in self.logits_processors:
            logits = processor(torch.tensor([self.text.ids], device=logits.device), logits)
        token = int(logits.argmax())
        self.clock.tick(logits.device, token)
        self.row_steps += batch_size
        self._emit(token)

    def _emit(self, token: int) -> None:
        self.request.emit(self.text.add(token), len(self.text.ids))

    def finish(self) -> Finished:
        """Return the finished answer."""
        loaded, generation, ids = self.loaded, self.request.generation, self.text.ids
        answer = finished_answer(loaded.model, loaded.tokenizer, self.output, ids, self.clock, generation.sampling)
        steps = len(ids) - 1
        mean_batch_size = self.row_steps / steps if steps else 1.0
        text = self.text.finish()
        reason = STOP if self.text.stopped and answer.finish_reason != ABORT else answer.finish_reason
        return Finished(answer, text, reason, self.options, mean_batch_size)
