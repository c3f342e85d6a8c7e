"""Declares the settings of how tokens are chosen, and turns them into keywords of ``generate``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, MinNewTokensLengthLogitsProcessor

from llava.errors import OptionError
from llava.penalties import CountPenalty, RepetitionPenalty
from llava.seeded_sampler import SeededSampler


@dataclass(frozen=True)
class SamplingParams:
    """Settings of how tokens are chosen.

    temperature: 0 is greedy; above 0, the same ``seed`` draws the same tokens again. top_k: 0 keeps all tokens, None as
    many as the model's generation config says. min_p: keeps tokens of at least this share of the best one's
    probability. repetition_penalty: for tokens of the prompt and of the answer so far; None: the generation config's.
    frequency_penalty, presence_penalty: for tokens of the answer so far. min_tokens: before this many tokens nothing
    ends the answer. ignore_eos: the model's end token does not end it either.
    """

    temperature: float = 0.0
    top_p: float | None = None
    num_beams: int = 1
    max_new_tokens: int = 512
    seed: int | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    min_tokens: int = 0
    ignore_eos: bool = False

    def keywords(
        self, prompt: torch.Tensor | None = None, top_k: int | None = None, end_ids: Sequence[int] = ()
    ) -> dict[str, Any]:
        """Return the keyword arguments of ``generate``.

        prompt: token ids (1, t), which a repetition penalty needs. top_k: the model's own. end_ids: the tokens that
        end an answer. Raises OptionError for values out of range, and for a seed with beams.
        """
        self.check()
        settings: dict[str, Any] = {
            "do_sample": False,
            "num_beams": self.num_beams,
            "max_new_tokens": self.max_new_tokens,
            "max_length": None,  # a checkpoint's own limit; transformers warns of two limits for every answer
        }
        if self.ignore_eos:
            settings["eos_token_id"] = None
        if self.repetition_penalty is not None:
            settings["repetition_penalty"] = 1.0  # in place of the generation config's; ours knows the prompt
        if self.temperature > 0 and self.seed is None:
            settings |= {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p}
            given = {"top_k": self.top_k, "min_p": self.min_p}
            settings |= {name: value for name, value in given.items() if value is not None}
        processors = self._processors(prompt, top_k, end_ids)
        return {**settings, "logits_processor": LogitsProcessorList(processors)} if processors else settings

    def check(self) -> None:
        """Raise OptionError for a value out of range, and for a seed with beams."""
        if not 0 <= self.temperature < math.inf:  # NaN is refused, too
            raise OptionError(f"--temperature is {self.temperature:g}; expected 0 (greedy) or more")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise OptionError(f"--top_p is {self.top_p:g}; expected a number in (0, 1]")
        if self.max_new_tokens < 1 or self.num_beams < 1:
            raise OptionError(
                f"--max-new-tokens is {self.max_new_tokens} and --num_beams {self.num_beams}; expected 1 or more"
            )
        if self.min_tokens > self.max_new_tokens:
            raise OptionError(
                f"min_tokens is {self.min_tokens:,}, but the answer can have {self.max_new_tokens:,} tokens; give a "
                "smaller min_tokens, or a larger limit of the answer where there is room"
            )
        if self.temperature > 0 and self.seed is not None and self.num_beams > 1:
            raise OptionError(f"seed is {self.seed} and --num_beams {self.num_beams}; a seed needs a single beam")

    def _processors(
        self, prompt: torch.Tensor | None, top_k: int | None, end_ids: Sequence[int]
    ) -> list[LogitsProcessor]:
        """Return what changes the logits before a token is chosen, in order; the draw itself is the last."""
        found: list[LogitsProcessor] = []
        if self.repetition_penalty is not None and self.repetition_penalty != 1:
            if prompt is None:
                raise ValueError("a repetition penalty needs the prompt's token ids")
            found.append(RepetitionPenalty(self.repetition_penalty, prompt))
        if self.frequency_penalty or self.presence_penalty:
            found.append(CountPenalty(self.frequency_penalty, self.presence_penalty))
        if self.min_tokens and end_ids:
            ends = torch.tensor(list(end_ids), device=None if prompt is None else prompt.device)
            found.append(MinNewTokensLengthLogitsProcessor(0, self.min_tokens, ends))
        if self.temperature > 0 and self.seed is not None:
            kept = top_k if self.top_k is None else self.top_k
            found.append(SeededSampler(self.seed, self.temperature, self.top_p, kept, self.min_p))
        return found
