"""One request in a running batch: its prefill, its tokens so far, its end."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import LogitsProcessorList

from llava.generation import SamplingParams, TokenClock, end_ids, finished_answer, generation_inputs
from llava.kv_cache import DecodingBatch, RowCache, take_row
from llava.model.loaded_model import LoadedModel
from llava.plugins import hooks
from llava.serve.engine.detokenizer import TextStream
from llava.serve.engine.request import EngineRequest, Finished

SEEDS = 2**63


def together(model: Any, outputs: list[Any]) -> DecodingBatch:
    """How generations of one row each decode as a batch."""
    plugin = hooks().decoding_batch(model=model, outputs=outputs)
    return DecodingBatch([None] * model.config.num_hidden_layers) if plugin is None else plugin


@dataclass(eq=False)
class RunningSequence:
    """``output``: what ``generate`` returned for the first token. ``rows``: batch sizes of its decode steps, summed."""

    loaded: LoadedModel
    job: EngineRequest
    options: Mapping[str, Any]
    clock: TokenClock
    output: Any
    choice: LogitsProcessorList
    text: TextStream
    cache: RowCache
    rows: int = 0

    @classmethod
    def prefill(cls, loaded: LoadedModel, job: EngineRequest, options: Mapping[str, Any]) -> RunningSequence:
        """Read a job's prompt and pictures, alone and so under its own plan, and say its first token."""
        model, question = loaded.model, job.question
        clock = TokenClock(job.cancelled_event)
        drawn = _own_seed(question.sampling).keywords(model.generation_config.top_k)
        inputs = generation_inputs(
            model, loaded.tokenizer, loaded.image_processor, question.prompt, question.images, options
        )
        drawn["max_new_tokens"] = 1
        output = model.generate(clock=clock, **drawn, **inputs)
        heads = together(model, [output]).heads
        cache = take_row(output.past_key_values, 0, output.past_key_values.get_seq_length(), heads, heads)
        output.past_key_values = None  # the row has it now
        text = TextStream(loaded.tokenizer, question.stop)
        row = cls(loaded, job, options, clock, output, drawn.get("logits_processor") or [], text, cache)
        row._say(int(output.sequences[0, -1]))
        return row

    @property
    def ended(self) -> bool:
        """Whether no token is to follow."""
        ids, most = self.text.ids, self.job.question.sampling.max_new_tokens
        last = ids[-1] in end_ids(self.loaded.model)
        return last or self.text.stopped or len(ids) >= most or self.job.cancelled_event.is_set()

    def add(self, scores: torch.Tensor, rows: int) -> None:
        """Choose the next token by its scores (1, vocabulary), float32, which a step of ``rows`` rows gave."""
        for processor in self.choice:
            scores = processor(torch.tensor([self.text.ids], device=scores.device), scores)
        token = int(scores.argmax())
        self.clock.tick(scores.device)
        self.rows += rows
        self._say(token)

    def _say(self, token: int) -> None:
        self.job.emit(self.text.add(token), len(self.text.ids))

    def finished(self) -> Finished:
        """The answer."""
        loaded, question, ids = self.loaded, self.job.question, self.text.ids
        result = finished_answer(
            loaded.model, loaded.tokenizer, self.output, ids, self.clock, question.sampling, question.stop
        )
        steps = len(ids) - 1
        return Finished(
            result, self.text.finished(), result.finish_reason, self.options, self.rows / steps if steps else 1.0
        )


def _own_seed(sampling: SamplingParams) -> SamplingParams:
    """Rows draw from generators of their own, so one that was given no seed gets one."""
    if sampling.temperature > 0 and sampling.seed is None:
        return replace(sampling, seed=secrets.randbelow(SEEDS))
    return sampling
